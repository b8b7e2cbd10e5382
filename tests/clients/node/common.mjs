// What the scripts share: where the server is, and how long its clients wait for it.
// A script is called as `node script.mjs PORT ...`, and exits with 0 when all was as expected.

export const HOST = '127.0.0.1';
export const PORT = Number(process.argv[2]);

// A client that waits for a server that is being restarted; commands are sent again.
export const patient = {
  host: HOST,
  port: PORT,
  maxRetriesPerRequest: null,
  retryStrategy: () => 100,
};

export function sleep(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// Poll `condition` until it returns something true; throw after `seconds`.
export async function until(condition, what, seconds = 60) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await sleep(20);
  }
}
