// A BullMQ worker for a process that is killed: each job takes a while. Argument: PORT.

import { Worker } from 'bullmq';
import { patient, sleep } from './common.mjs';

const worker = new Worker(
  'stalled',
  async (job) => {
    await sleep(150);
    return job.data.number * 2;
  },
  { connection: patient, concurrency: 10, lockDuration: 1000, stalledInterval: 500, maxStalledCount: 9 },
);
worker.on('error', () => {});
await worker.waitUntilReady();
console.log('ready');
