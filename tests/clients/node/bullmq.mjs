// BullMQ: every kind of job once, with a worker that runs several at a time, and its events.

import assert from 'node:assert/strict';
import { FlowProducer, Queue, QueueEvents, UnrecoverableError, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { patient, sleep, until } from './common.mjs';

const connection = patient;
const queue = new Queue('work', { connection });
const events = new QueueEvents('work', { connection });
const seen = { completed: new Set(), failed: new Set(), progress: 0, delayed: 0, waiting: 0 };
events.on('completed', ({ jobId }) => seen.completed.add(jobId));
events.on('failed', ({ jobId }) => seen.failed.add(jobId));
events.on('progress', () => (seen.progress += 1));
events.on('delayed', () => (seen.delayed += 1));
events.on('waiting', () => (seen.waiting += 1));
await events.waitUntilReady();

const order = [];
const started = new Map();
const handlers = {
  square: async (job) => job.data.number ** 2,
  ordered: async (job) => order.push(job.data.number),
  note: async (job) => started.set(job.id, Date.now()),
  progress: async (job) => {
    await job.log('half of it');
    await job.updateProgress(50);
    await job.updateData({ changed: true });
    return 'done';
  },
  flaky: async (job) => {
    if (job.attemptsMade < 2) throw new Error(`attempt ${job.attemptsMade}`);
    return job.attemptsMade;
  },
  hopeless: async () => {
    throw new UnrecoverableError('never');
  },
  parent: async (job) => {
    const values = Object.values(await job.getChildrenValues());
    return values.reduce((sum, value) => sum + value, 0);
  },
};
const options = { connection, autorun: false, concurrency: 10 };
const worker = new Worker('work', (job) => handlers[job.name](job), options);

// Priorities: while no worker runs, jobs are put in order; a lower number is more urgent.
for (const number of [5, 1, 4, 2, 3]) {
  await queue.add('ordered', { number }, { priority: number });
}
assert.deepEqual(await queue.getJobCounts('prioritized', 'wait'), { prioritized: 5, wait: 0 });
const single = new Worker('work', (job) => handlers[job.name](job), { connection, concurrency: 1 });
await until(() => order.length === 5, 'prioritised jobs');
assert.deepEqual(order, [1, 2, 3, 4, 5]);
await single.close();
worker.run();

// Results, in bulk.
const jobs = await queue.addBulk(
  Array.from({ length: 1000 }, (_, number) => ({ name: 'square', data: { number } })),
);
for (const job of jobs) {
  assert.equal(await job.waitUntilFinished(events, 60_000), job.data.number ** 2);
}

// Delays.
const asked = Date.now();
const late = await queue.add('note', {}, { delay: 700 });
const soon = await queue.add('note', {}, { delay: 60_000 });
assert.equal(await soon.getState(), 'delayed');
await soon.promote();
await soon.waitUntilFinished(events, 20_000);
await late.waitUntilFinished(events, 20_000);
assert.ok(started.get(late.id) - asked >= 690);
assert.ok(started.get(soon.id) < started.get(late.id));

// Retries with a backoff, and what can't be retried.
const flaky = await queue.add('flaky', {}, { attempts: 3, backoff: { type: 'exponential', delay: 50 } });
assert.equal(await flaky.waitUntilFinished(events, 20_000), 2);
const hopeless = await queue.add('hopeless', {}, { attempts: 5 });
await assert.rejects(hopeless.waitUntilFinished(events, 20_000), /never/);
assert.equal(await hopeless.getState(), 'failed');
assert.equal((await queue.getFailed()).length, 1);
await hopeless.retry('failed');
await until(async () => (await queue.getJob(hopeless.id)).attemptsMade === 2, 'second failure');

// Progress, logs, changed data.
const talking = await queue.add('progress', {});
assert.equal(await talking.waitUntilFinished(events, 20_000), 'done');
assert.deepEqual((await queue.getJobLogs(talking.id)).logs, ['half of it']);
assert.deepEqual((await queue.getJob(talking.id)).data, { changed: true });
await until(() => seen.progress === 1, 'progress event');

// A flow: a parent waits for its children, some of which have children.
const flows = new FlowProducer({ connection });
const leaf = (number) => ({ name: 'square', queueName: 'work', data: { number } });
const tree = await flows.add({
  name: 'parent',
  queueName: 'work',
  children: [
    ...Array.from({ length: 20 }, (_, number) => leaf(number)),
    { name: 'parent', queueName: 'work', children: [leaf(100), leaf(200)] },
  ],
});
assert.equal(await tree.job.waitUntilFinished(events, 20_000), 2470 + 50_000);
assert.equal((await tree.job.getDependencies()).unprocessed?.length ?? 0, 0);

// Repeated jobs.
let ticks = 0;
handlers.tick = async () => (ticks += 1);
await queue.upsertJobScheduler('every', { every: 150 }, { name: 'tick' });
await queue.upsertJobScheduler('cron', { pattern: '0 0 1 1 *' }, { name: 'tick' });
await until(() => ticks >= 4, 'repeated jobs');
assert.equal((await queue.getJobSchedulers()).length, 2);
assert.ok(await queue.removeJobScheduler('every'));
assert.ok(await queue.removeJobScheduler('cron'));

// Deduplication, and the same id twice.
await queue.pause();
const first = await queue.add('square', { number: 1 }, { deduplication: { id: 'one', ttl: 5000 } });
const again = await queue.add('square', { number: 2 }, { deduplication: { id: 'one', ttl: 5000 } });
assert.equal(first.id, again.id);
await queue.add('square', { number: 3 }, { jobId: 'mine' });
await queue.add('square', { number: 4 }, { jobId: 'mine' });
assert.equal(await queue.isPaused(), true);
const held = await queue.getJobCounts('paused', 'wait');
assert.equal(held.paused + held.wait, 2);
await queue.resume();
await until(async () => (await queue.getJob('mine'))?.returnvalue === 9, 'resumed');

// A worker with a limit on its rate.
const limited = new Queue('limited', { connection });
const stamps = [];
await limited.addBulk(Array.from({ length: 9 }, () => ({ name: 'n', data: {} })));
const slow = new Worker('limited', async () => stamps.push(Date.now()), {
  connection,
  limiter: { max: 3, duration: 400 },
});
await until(() => stamps.length === 9, 'limited jobs');
assert.ok(stamps[8] - stamps[0] >= 700, `9 jobs within ${stamps[8] - stamps[0]} ms`);

// Events came for all of it, and everything can be cleared away.
for (const job of jobs) await until(() => seen.completed.has(job.id), 'completed event');
assert.ok(seen.failed.has(hopeless.id) && seen.delayed >= 3 && seen.waiting > 1000);
assert.equal((await queue.getWorkers()).length, 1);
const kinds = ['active', 'wait', 'prioritized', 'delayed', 'waiting-children', 'completed'];
const counts = await queue.getJobCounts(...kinds);
assert.deepEqual(kinds.slice(0, -1).map((kind) => counts[kind]), [0, 0, 0, 0, 0]);
assert.equal((await queue.clean(0, 10_000, 'completed')).length, counts.completed);
await worker.close();
await slow.close();
await queue.obliterate({ force: true });
await limited.obliterate({ force: true });
const client = new Redis(connection);
assert.deepEqual(await client.keys('bull:*:[0-9]*'), []);
client.disconnect();
for (const one of [flows, events, queue, limited]) await one.close();
await sleep(0);
console.log('ok');
