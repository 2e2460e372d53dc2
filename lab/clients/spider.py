"""A Scrapy spider over the whole site, and the page counts that Scrapy itself keeps to."""

import scrapy


class Shop(scrapy.Spider):
    name = "shop"
    start_urls = ["https://shop.example/"]
    allowed_domains = ["shop.example"]

    def parse(self, response):
        if "text/html" not in response.headers.get("Content-Type", b"").decode():
            return
        for link in response.css("a::attr(href)").getall():
            yield response.follow(link, self.parse)
