// A robot that drives a browser: headless.cjs '{"mode": "playwright", "pages": ["/", …], …}'
//
// Modes: playwright (as it comes), playwright-agent (with a person's agent), playwright-no-assets (images and styles blocked),
// playwright-clicks (follows links in the page), puppeteer, puppeteer-stealth, firefox.
'use strict';
const browsers = require('./browsers.cjs');
const who = JSON.parse(process.argv[2]);
const origin = 'https://shop.example';

async function playwright() {
  const { chromium } = require('playwright-core');
  const to = who.port === 443 ? who.address : `${who.address}:${who.port}`;
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: [`--host-resolver-rules=MAP * ${to}`] });
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...(who.agent ? { userAgent: who.agent } : {}) });
  const page = await context.newPage();
  if (who.mode === 'playwright-no-assets') await page.route(/\.(png|css|woff2|ico)(\?|$)/, route => route.abort());
  if (who.mode === 'playwright-clicks') {
    await page.goto(origin + '/');
    for (let i = 0; i < who.pages.length; i++) {
      const found = await page.$$eval('main a, nav a', (all, n) => { const one = all[n % all.length]; if (one) one.click(); return all.length; }, i * 7 + 3);
      if (!found) await page.goto(origin + '/blog/');
      await page.waitForLoadState('load').catch(() => {});
      await browsers.sleep(300);
    }
  } else {
    for (const where of who.pages) {
      await page.goto(origin + where, { waitUntil: 'load' }).catch(() => {});
      await page.content().catch(() => {});
      await browsers.sleep((who.pause || 0) * 1000);
    }
  }
  await browser.close();
}

async function puppeteer() {
  let library = require('puppeteer-core');
  if (who.mode === 'puppeteer-stealth') {
    library = require('puppeteer-extra').addExtra(library);
    library.use(require('puppeteer-extra-plugin-stealth')());
  }
  const browser = await library.launch({
    executablePath: '/usr/bin/chromium', headless: true, acceptInsecureCerts: true, ignoreHTTPSErrors: true,
    args: ['--no-sandbox', '--ignore-certificate-errors', `--host-resolver-rules=MAP * ${who.address}${who.port === 443 ? '' : ':' + who.port}`],
  });
  const page = await browser.newPage();
  for (const where of who.pages) {
    await page.goto(origin + where, { waitUntil: 'load', timeout: 15000 }).catch(() => {});
    await browsers.sleep((who.pause || 0) * 1000);
  }
  await browser.close();
}

async function firefox() {
  const browser = await browsers.firefox({ ...who, headless: true, languages: 'en-US,en' });
  for (const where of who.pages) await browser.goto(origin + where);
  await browser.close();
}

const run = who.mode.startsWith('playwright') ? playwright : who.mode === 'firefox' ? firefox : puppeteer;
run().then(() => process.exit(0), error => { console.error(error); process.exit(1); });
