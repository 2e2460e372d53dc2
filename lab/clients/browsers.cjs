// Three real browsers behind one small interface: `goto`, `js`, `back`, `close`.
//
// Chromium by playwright-core, Firefox by puppeteer-core (WebDriver BiDi), WebKitGTK by its own WebDriver. Each is started with
// a profile folder, so that a person who comes back has things cached, and reaches the site by the person's address.
'use strict';
const fs = require('node:fs');
const path = require('node:path');
const { spawn } = require('node:child_process');

const sleep = ms => new Promise(done => setTimeout(done, ms));

/// The brands of Sec-CH-UA as Chromium makes them: the made-up brand and the order depend on the major version.
function brandsOf(major, seller) {
  const marks = [' ', '(', ':', '-', '.', '/', ')', ';', '=', '?', '_'];
  const made_up = { brand: `Not${marks[major % 11]}A${marks[(major + 1) % 11]}Brand`, version: ['8', '99', '24'][major % 3] };
  const version = String(major);
  if (!seller) return major % 2 ? [{ brand: 'Chromium', version }, made_up] : [made_up, { brand: 'Chromium', version }];
  const order = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]][major % 6];
  const brands = [];
  [made_up, { brand: 'Chromium', version }, { brand: seller, version }].forEach((brand, i) => { brands[order[i]] = brand; });
  return brands;
}

/// Chromium in a window. `who`: profile, address, port, spki, languages, agent, brand, mobile, width, height.
async function chromium(who) {
  const { chromium } = require('playwright-core');
  fs.mkdirSync(path.join(who.profile, 'Default'), { recursive: true });
  const preferences = path.join(who.profile, 'Default', 'Preferences');
  if (!fs.existsSync(preferences)) {
    fs.writeFileSync(preferences, JSON.stringify({ intl: { accept_languages: who.languages, selected_languages: who.languages } }));
  }
  const to = who.port === 443 ? who.address : `${who.address}:${who.port}`;
  const context = await chromium.launchPersistentContext(who.profile, {
    executablePath: who.binary || '/usr/bin/chromium',
    headless: who.headless || false,
    ignoreDefaultArgs: ['--disable-back-forward-cache', '--enable-automation'],
    args: [`--host-resolver-rules=MAP * ${to}`, `--ignore-certificate-errors-spki-list=${who.spki}`,
      '--disable-gpu', '--mute-audio', ...(who.agent ? [`--user-agent=${who.agent}`] : [])],
    viewport: { width: who.width || 1280, height: who.height || 720 },
    isMobile: who.mobile || false,
    hasTouch: who.mobile || false,
    deviceScaleFactor: who.mobile ? 2 : 1,
    javaScriptEnabled: !who.no_script,
  });
  const page = context.pages()[0] || await context.newPage();
  page.setDefaultTimeout(15000);
  if (who.agent) {
    // The agent's client hints: the browser's own brands and version, with the seller's name as Chrome and Edge send it.
    const session = await context.newCDPSession(page);
    const brands = brandsOf(Number(/Chrome\/(\d+)/.exec(who.agent)[1]), who.brand);
    await session.send('Emulation.setUserAgentOverride', {
      userAgent: who.agent,
      userAgentMetadata: {
        brands, fullVersionList: brands.map(b => ({ brand: b.brand, version: `${b.version}.0.0.0` })), platform: who.platform || 'Linux',
        platformVersion: '10.0.0', architecture: who.mobile ? '' : 'x86', model: who.mobile ? 'K' : '', mobile: !!who.mobile,
      },
    });
  }
  if (who.block) await page.route(who.block === 'assets' ? /\.(png|css|woff2|ico)(\?|$)/ : /\/api\/event/, route => route.abort());
  return {
    goto: url => page.goto(url, { waitUntil: 'load' }).catch(() => {}),
    js: code => page.evaluate(code).catch(() => undefined),
    back: () => page.goBack({ timeout: 3000 }).catch(() => {}),
    close: () => context.close(),
    page,
  };
}

/// Firefox in a window; names are resolved by the lab's hosts file.
async function firefox(who) {
  const puppeteer = require('puppeteer-core');
  const prefs = { 'intl.accept_languages': who.languages, 'network.captive-portal-service.enabled': false, 'browser.cache.disk.enable': true };
  if (who.agent) prefs['general.useragent.override'] = who.agent;
  if (who.no_referrer) prefs['network.http.sendRefererHeader'] = 0;
  if (who.no_images) prefs['permissions.default.image'] = 2;
  const browser = await puppeteer.launch({
    browser: 'firefox', executablePath: who.binary || '/usr/bin/firefox-esr', headless: who.headless || false,
    userDataDir: who.profile, acceptInsecureCerts: true, extraPrefsFirefox: prefs, protocolTimeout: 20000, defaultViewport: null,
  });
  const page = (await browser.pages())[0] || await browser.newPage();
  page.setDefaultTimeout(15000);
  return {
    goto: url => page.goto(url, { waitUntil: 'load' }).catch(() => {}),
    js: code => page.evaluate(code).catch(() => undefined),
    back: () => page.goBack({ timeout: 3000 }).catch(() => {}),
    close: () => browser.close(),
    page,
  };
}

/// WebKitGTK's MiniBrowser by WebKitWebDriver; names are resolved by the lab's hosts file.
async function webkit(who) {
  const port = 30000 + Math.floor(Math.random() * 20000);
  // It takes its languages from the locale, and Accept-Language from these.
  const languages = who.languages.split(',').map(l => l.replace('-', '_'));
  const locale = { LANGUAGE: languages.join(':'), LANG: `${languages[0]}.UTF-8`, ...(who.locales ? { LOCPATH: who.locales } : {}) };
  const driver = spawn('WebKitWebDriver', ['-p', String(port)], { stdio: 'ignore', env: { ...process.env, ...locale, XDG_DATA_HOME: who.profile, XDG_CACHE_HOME: who.profile } });
  const call = async (method, where, body) => {
    const answer = await fetch(`http://127.0.0.1:${port}${where}`, { method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    const { value } = await answer.json();
    if (value && value.error) throw new Error(`${value.error}: ${value.message}`);
    return value;
  };
  for (let i = 0; ; i++) {
    try { await call('GET', '/status'); break; } catch (e) { if (i > 50) throw e; await sleep(100); }
  }
  const args = ['--automation'];
  if (who.agent) args.push(`--user-agent=${who.agent}`);
  const made = await call('POST', '/session', { capabilities: { alwaysMatch: {
    acceptInsecureCerts: true, pageLoadStrategy: 'normal', 'webkitgtk:browserOptions': { binary: who.binary, args },
  } } });
  // Said in the client's output; a person goes on.
  const say = error => { console.error(String(error)); };
  const at = `/session/${made.sessionId}`;
  return {
    goto: url => call('POST', `${at}/url`, { url }).catch(say),
    js: code => call('POST', `${at}/execute/sync`, { script: `return (${code})`, args: [] }).catch(say),
    back: () => call('POST', `${at}/back`, {}).catch(say),
    close: async () => { await call('DELETE', at).catch(() => {}); driver.kill(); },
  };
}

module.exports = { chromium, firefox, webkit, sleep };
