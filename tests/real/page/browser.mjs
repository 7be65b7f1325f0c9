// A headless Chromium that a test steers: one JSON command a line on stdin, one JSON answer a line on stdout.
//
//   node browser.mjs URL        opens the page; then {"step": "texts", "args": …} → {"ok": …} or {"error": "…"}

import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { steps } from "./steps.mjs";
import { watch } from "./watch.mjs";

const PROGRAM = "/usr/bin/chromium";
/** As root, and with no host to talk to but the node. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
/** For a start on a busy machine. */
const START_MS = 60_000;

async function open(url) {
  const browser = await chromium.launch({ executablePath: PROGRAM, args: FLAGS, timeout: START_MS });
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 }, colorScheme: "light" });
  page.setDefaultTimeout(START_MS);
  const seen = await watch(page);
  await page.goto(url, { timeout: START_MS });
  return { browser, page, seen };
}

async function obey(opened, line) {
  const { step, args } = JSON.parse(line);
  try {
    return { ok: (await steps[step](opened, args)) ?? null };
  } catch (error) {
    return { error: `${step}: ${error.stack ?? error}` };
  }
}

const opened = await open(process.argv[2]);
const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
say({ ok: "open" });
for await (const line of createInterface({ input: process.stdin })) say(await obey(opened, line));
await opened.browser.close();
