// A person: people.cjs '{"engine": "chromium", "steps": [["search", "www.google.com", "/blog/"], ["read"], …], …}'
//
// Does what the steps say in a real browser, with pauses as a person makes them (`think` times as long as the shortest).
// Links are clicked in the page, so that the browser itself says where it comes from.
'use strict';
const browsers = require('./browsers.cjs');
const { sleep } = browsers;

const who = JSON.parse(process.argv[2]);
const origin = 'https://shop.example';
const think = who.think || 1;

// mulberry32: the same person does the same thing in each run.
let state = who.seed >>> 0;
const random = () => {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
};
const pause = (low, high) => sleep((low + (high - low) * random()) * 1000 * think);

async function loaded(browser) {
  await sleep(250);
  for (let i = 0; i < 40 && await browser.js('document.readyState') !== 'complete'; i++) await sleep(100);
}

// Clicks the n-th of the links that match, chosen by chance.
const click = (browser, selector) => browser.js(
  `(() => { const all = [...document.querySelectorAll(${JSON.stringify(selector)})]; const one = all[Math.floor(${random()} * all.length)];`
  + ' if (one) { one.scrollIntoView(); setTimeout(() => one.click(), 30); } return !!one; })()');

const links = {
  blog: 'main a[href^="/blog/"]', product: 'main a[href^="/product/"]', category: 'nav a[href^="/category/"]',
  nav: 'nav a', any: 'main a', older: 'a.next, nav a[href="/blog/"]', sale: 'footer a[href^="/old"]', paper: 'a[href$=".pdf"]',
};

const steps = {
  search: async (browser, host, to) => {
    await browser.goto(`https://${host}/?to=${encodeURIComponent(to)}`);
    await pause(0.1, 0.3);
    await click(browser, '#hit');
    await loaded(browser);
  },
  direct: (browser, to) => browser.goto(origin + to),
  read: async (browser) => {
    const screens = 2 + Math.floor(random() * 4);
    for (let i = 1; i <= screens; i++) {
      await browser.js(`window.scrollTo(0, ${i} * 600)`);
      await pause(0.15, 0.6);
    }
  },
  click: async (browser, kind) => {
    if (!await click(browser, links[kind])) await click(browser, links.nav);
    await loaded(browser);
  },
  back: async (browser) => { await browser.back(); await loaded(browser); },
  reload: async (browser) => { await browser.js('location.reload()'); await loaded(browser); },
  find: async (browser, word) => {
    for (let i = 2; i < word.length + 2; i += 3) {
      await browser.js(`(() => { const f = document.querySelector('.search input'); f.value = ${JSON.stringify(word)}.slice(0, ${i + 1}); f.dispatchEvent(new Event('input')); })()`);
      await pause(0.1, 0.3);
    }
    await click(browser, '.search button');
    await loaded(browser);
  },
  login: async (browser, user, password) => {
    await click(browser, 'nav a[href="/login"]');
    await loaded(browser);
    await pause(0.5, 1.2);
    await browser.js(`(() => { const f = document.getElementById('login'); f.user.value = ${JSON.stringify(user)}; f.password.value = ${JSON.stringify(password)}; })()`);
    await click(browser, '#login button');
    await loaded(browser);
  },
  again: async (browser, user, password) => {
    await pause(0.5, 1);
    await browser.js(`(() => { const f = document.getElementById('login'); if (f) { f.user.value = ${JSON.stringify(user)}; f.password.value = ${JSON.stringify(password)}; } })()`);
    await click(browser, '#login button');
    await loaded(browser);
  },
  cart: async (browser) => { await click(browser, 'form[action="/cart"] button'); await loaded(browser); },
  work: async (browser, seconds) => sleep(seconds * 1000 * Math.min(think, 10)),
};

(async () => {
  const browser = await browsers[who.engine](who);
  process.once('SIGTERM', () => browser.close().finally(() => process.exit(1)));
  try {
    for (const [name, ...rest] of who.steps) {
      await steps[name](browser, ...rest);
      await pause(0.3, 1.5);
    }
  } finally {
    await browser.close();
  }
})().then(() => process.exit(0), error => { console.error(error); process.exit(1); });
