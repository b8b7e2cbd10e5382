// Jobs for workers that are killed, and their results. Arguments: PORT JOBS.
// Prints a line when the first result is there; the caller kills a worker then.

import assert from 'node:assert/strict';
import { Queue } from 'bullmq';
import { patient, until } from './common.mjs';

const JOBS = Number(process.argv[3]);
const queue = new Queue('stalled', { connection: patient });
const jobs = await queue.addBulk(
  Array.from({ length: JOBS }, (_, number) => ({ name: 'n', data: { number } })),
);
await until(async () => (await queue.getCompletedCount()) > 0, 'a result');
console.log('begun');
await until(async () => (await queue.getCompletedCount()) === JOBS, 'all results');
let stalled = 0;
for (const { id, data } of jobs) {
  const job = await queue.getJob(id);
  assert.equal(job.returnvalue, data.number * 2);
  stalled += job.stalledCounter > 0;
}
await queue.close();
console.log(JSON.stringify({ stalled }));
