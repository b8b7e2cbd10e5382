// node-redis with RESP2 and RESP3: types, MULTI, iterators, pub/sub, a pool, client-side cache.

import assert from 'node:assert/strict';
import { createClient, createClientPool, defineScript, WatchError } from 'redis';
import { HOST, PORT, sleep, until } from './common.mjs';

const socket = { host: HOST, port: PORT, reconnectStrategy: () => 100 };
for (const RESP of [2, 3]) await everything(RESP);
await cached();
console.log('ok');

async function connect(options) {
  const client = createClient({ socket, ...options });
  client.on('error', () => {});
  return client.connect();
}

async function everything(RESP) {
  const add = defineScript({
    SCRIPT: "return redis.call('INCRBY', KEYS[1], ARGV[1]) * 2",
    NUMBER_OF_KEYS: 1,
    parseCommand(parser, key, amount) {
      parser.pushKey(key);
      parser.push(String(amount));
    },
    transformReply: (reply) => reply,
  });
  const client = await connect({ RESP, scripts: { add } });
  await client.flushAll();
  assert.equal(await client.set('key', 'value', { expiration: { type: 'EX', value: 100 } }), 'OK');
  assert.equal(await client.get('key'), 'value');
  await client.hSet('hash', { a: 1, b: 'two' });
  assert.deepEqual({ ...(await client.hGetAll('hash')) }, { a: '1', b: 'two' });
  assert.deepEqual(await client.hExpire('hash', ['a', 'none'], 100), [1, -2]);
  await client.zAdd('zset', [{ score: 1, value: 'a' }, { score: 2.5, value: 'b' }]);
  assert.deepEqual(
    (await client.zRangeWithScores('zset', 0, -1)).map(({ value, score }) => [value, score]),
    [['a', 1], ['b', 2.5]],
  );
  await client.geoAdd('geo', { longitude: 13.361389, latitude: 38.115556, member: 'Palermo' });
  const [place] = await client.geoPos('geo', 'Palermo');
  assert.ok(Math.abs(Number(place.longitude) - 13.361389) < 1e-4);
  assert.equal(await client.add('sum', 21), 42);

  const replies = await client.multi().set('x', 1).incr('x').hGet('hash', 'b').exec();
  assert.deepEqual(replies, ['OK', 2, 'two']);
  await client.watch('x');
  const other = await connect({ RESP });
  await other.set('x', 'changed');
  await assert.rejects(client.multi().set('x', 'mine').exec(), WatchError);

  await Promise.all(Array.from({ length: 3000 }, (_, n) => client.sAdd('set', `member:${n}`)));
  const members = new Set();
  for await (const batch of client.sScanIterator('set', { COUNT: 100 })) {
    for (const member of batch) members.add(member);
  }
  assert.equal(members.size, 3000);
  const keys = [];
  for await (const batch of client.scanIterator({ MATCH: '*s*et', TYPE: 'set' })) keys.push(...batch);
  assert.deepEqual(keys, ['set']);

  const got = [];
  const subscriber = await connect({ RESP });
  await subscriber.subscribe('news', (message, channel) => got.push([channel, message]));
  await subscriber.pSubscribe('n*', (message, channel) => got.push([channel, message]));
  await client.publish('news', 'hello');
  await until(() => got.length === 2, 'messages');
  await subscriber.unsubscribe();
  await subscriber.pUnsubscribe();

  const waiting = other.blPop('list', 10);
  await client.rPush('list', 'job');
  assert.deepEqual({ ...(await waiting) }, { key: 'list', element: 'job' });
  await client.xGroupCreate('stream', 'group', '0', { MKSTREAM: true });
  const id = await client.xAdd('stream', '*', { field: 'value' });
  const read = await other.xReadGroup('group', 'me', { key: 'stream', id: '>' }, { COUNT: 5 });
  const [{ messages }] = read;
  assert.deepEqual([messages[0].id, { ...messages[0].message }], [id, { field: 'value' }]);
  assert.equal(await client.xAck('stream', 'group', id), 1);
  assert.equal((await client.xInfoStream('stream')).length, 1);

  const pool = await createClientPool({ socket, RESP }, { maximum: 5 }).connect();
  const values = await Promise.all(Array.from({ length: 200 }, () => pool.incr('pooled')));
  assert.deepEqual(values.sort((a, b) => a - b), Array.from({ length: 200 }, (_, n) => n + 1));
  for (const one of [subscriber, other, pool, client]) one.destroy();
}

// Client-side caching needs RESP3: invalidations arrive as push messages.
async function cached() {
  const client = await connect({ RESP: 3, clientSideCache: { ttl: 0, maxEntries: 100 } });
  const other = await connect({ RESP: 3 });
  const calls = async () => Number(/cmdstat_get:calls=(\d+)/.exec(await other.info('commandstats'))[1]);
  await other.set('cached', 'first');
  assert.equal(await client.get('cached'), 'first');
  const before = await calls();
  for (let n = 0; n < 100; n += 1) assert.equal(await client.get('cached'), 'first');
  assert.equal(await calls(), before);
  await other.set('cached', 'second');
  await until(async () => (await client.get('cached')) === 'second', 'invalidation');
  await other.flushAll();
  await until(async () => (await client.get('cached')) === null, 'invalidation of everything');
  await sleep(0);
  for (const one of [client, other]) one.destroy();
}
