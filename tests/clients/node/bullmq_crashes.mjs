// BullMQ while the server is killed again and again: arguments PORT JOBS.
//
// Jobs have ids, so one whose addition is sent again after a crash is there once. A job runs again
// only when BullMQ found it stalled (its lock has expired, or the reply that gave it out was lost).

import assert from 'node:assert/strict';
import { Queue, QueueEvents, Worker } from 'bullmq';
import { patient, sleep, until } from './common.mjs';

const JOBS = Number(process.argv[3]);
const connection = patient;
const queue = new Queue('crash', { connection });
const events = new QueueEvents('crash', { connection });
const runs = new Map();
const stalled = new Map();
const errors = new Map();
const announced = new Set();
for (const one of [queue, events]) one.on('error', count);
events.on('completed', ({ jobId }) => announced.add(jobId));

function count(error) {
  const text = String(error.message).replace(/\d+/g, 'N');
  errors.set(text, (errors.get(text) ?? 0) + 1);
}

async function run(job) {
  runs.set(job.id, (runs.get(job.id) ?? 0) + 1);
  await sleep(2);
  if (job.data.number % 50 === 7 && job.attemptsMade === 0) throw new Error('once more');
  return job.data.number * 2;
}

const workers = [0, 1].map(() => {
  const worker = new Worker('crash', run, {
    connection,
    concurrency: 20,
    lockDuration: 5000,
    stalledInterval: 1000,
    maxStalledCount: 20,
  });
  worker.on('error', count);
  worker.on('stalled', (id) => stalled.set(id, (stalled.get(id) ?? 0) + 1));
  return worker;
});

for (let number = 0; number < JOBS; number += 25) {
  const batch = Array.from({ length: 25 }, (_, offset) => {
    const own = number + offset;
    const opts = { jobId: `job-${own}`, attempts: 5 };
    if (own % 10 === 1) opts.delay = 300;
    if (own % 10 === 2) opts.priority = 1 + (own % 3);
    return { name: 'n', data: { number: own }, opts };
  });
  await queue.addBulk(batch);
  await sleep(60);
}

await until(async () => (await queue.getCompletedCount()) === JOBS, 'all completed', 100).catch(
  async (error) => {
    console.log(await queue.getJobCounts(), Object.fromEntries(errors));
    throw error;
  },
);
let again = 0;
for (let number = 0; number < JOBS; number += 1) {
  const job = await queue.getJob(`job-${number}`);
  assert.equal(job.returnvalue, number * 2);
  const meant = number % 50 === 7 ? 2 : 1;
  const extra = runs.get(job.id) - meant;
  again += extra;
  assert.ok(extra >= 0 && extra <= job.stalledCounter, `${job.id} ran ${runs.get(job.id)} times`);
}
for (const one of [...workers, queue, events]) await one.close();
console.log(JSON.stringify({ again, stalled: stalled.size, announced: announced.size,
  errors: Object.fromEntries(errors) }));
