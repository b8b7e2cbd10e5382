// ioredis: pipelines, transactions, scripts, streams of keys, pub/sub, blocking, monitor, crashes.
// Arguments: PORT, then `crashes` when the server is killed meanwhile.

import assert from 'node:assert/strict';
import { Redis } from 'ioredis';
import { patient, sleep, until } from './common.mjs';

const redis = new Redis(patient);
redis.on('error', () => {});

if (process.argv[3] === 'crashes') await throughCrashes();
else await everything();
redis.disconnect();
console.log('ok');

// A counter may be increased twice when its reply was lost; a set and a transaction's flag not.
async function throughCrashes() {
  const acknowledged = new Set();
  const end = Date.now() + 6000;
  const writers = [0, 1, 2, 3].map(async (writer) => {
    for (let number = 0; Date.now() < end; number += 1) {
      const member = `${writer}:${number}`;
      const results = await redis.multi().sadd('members', member).hset('hash', member, 1).exec();
      for (const [error] of results) assert.equal(error, null);
      acknowledged.add(member);
      await redis.rpush(`list:${writer}`, member);
      await sleep(1);
    }
  });
  await Promise.all(writers);
  const members = new Set(await redis.smembers('members'));
  for (const member of acknowledged) assert.ok(members.has(member), `lost: ${member}`);
  assert.equal(await redis.hlen('hash'), members.size);
  for (const writer of [0, 1, 2, 3]) {
    const pushed = new Set(await redis.lrange(`list:${writer}`, 0, -1));
    for (const member of acknowledged) {
      if (member.startsWith(`${writer}:`)) assert.ok(pushed.has(member), `lost: ${member}`);
    }
  }
}

async function everything() {
  assert.equal(await redis.set('key', 'välue', 'EX', 100), 'OK');
  assert.equal(await redis.get('key'), 'välue');
  assert.deepEqual(await redis.getBuffer('key'), Buffer.from('välue'));
  await redis.hset('hash', { a: 1, b: 2 });
  assert.deepEqual(await redis.hgetall('hash'), { a: '1', b: '2' });
  await redis.zadd('zset', 1, 'a', 2.5, 'b');
  assert.deepEqual(await redis.zrange('zset', 0, -1, 'WITHSCORES'), ['a', '1', 'b', '2.5']);

  const pipeline = redis.pipeline();
  for (let number = 0; number < 5000; number += 1) pipeline.set(`key:${number}`, number);
  pipeline.lpush('key:1', 'x');
  const replies = await pipeline.exec();
  assert.equal(replies.length, 5001);
  assert.match(replies[5000][0].message, /^WRONGTYPE/);
  await assert.rejects(redis.multi().set('key', 1).call('nonsense').exec(), /EXECABORT/);

  redis.defineCommand('addTo', {
    numberOfKeys: 1,
    lua: "redis.call('INCRBY', KEYS[1], ARGV[1]); return {redis.call('GET', KEYS[1]), ARGV[2]}",
  });
  assert.deepEqual(await redis.addTo('sum', 5, 'x'), ['5', 'x']);
  await redis.script('FLUSH');
  assert.deepEqual(await redis.addTo('sum', 5, 'x'), ['10', 'x']);
  const scripted = await redis.pipeline().addTo('sum', 1, 'y').addTo('sum', 1, 'z').exec();
  assert.deepEqual(scripted.map(([, reply]) => reply), [['11', 'y'], ['12', 'z']]);

  const found = new Set();
  for await (const keys of redis.scanStream({ match: 'key:*', count: 100 })) {
    for (const key of keys) found.add(key);
  }
  assert.equal(found.size, 5000);

  const subscriber = new Redis(patient);
  const got = [];
  subscriber.on('message', (channel, message) => got.push([channel, message]));
  subscriber.on('pmessage', (pattern, channel, message) => got.push([pattern, channel, message]));
  assert.equal(await subscriber.subscribe('news', 'other'), 2);
  assert.equal(await subscriber.psubscribe('n*'), 3);
  assert.equal(await redis.publish('news', 'hello'), 2);
  await until(() => got.length === 2, 'messages');
  assert.deepEqual(got, [['news', 'hello'], ['n*', 'news', 'hello']]);
  await subscriber.unsubscribe('news', 'other');
  await subscriber.punsubscribe('n*');
  assert.equal(await subscriber.get('sum'), '12');

  const waiting = subscriber.blpop('list', 10);
  await redis.rpush('list', 'job');
  assert.deepEqual(await waiting, ['list', 'job']);
  const reading = subscriber.xread('BLOCK', 10_000, 'STREAMS', 'stream', '$');
  await until(async () => /blocked_clients:1/.test(await redis.info('clients')), 'blocked');
  const id = await redis.xadd('stream', '*', 'field', 'value');
  assert.deepEqual(await reading, [['stream', [[id, ['field', 'value']]]]]);

  const monitor = await redis.monitor();
  const lines = [];
  monitor.on('monitor', (time, args) => lines.push(args));
  await redis.set('watched', 'é "quoted"\n');
  await until(() => lines.length > 0, 'monitor');
  assert.deepEqual(lines[0].slice(0, 2), ['set', 'watched']);
  monitor.disconnect();
  subscriber.disconnect();

  const named = new Redis({ ...patient, db: 3, connectionName: 'me', keyPrefix: 'p:' });
  await named.set('a', 1);
  assert.equal(await named.client('GETNAME'), 'me');
  assert.match(await named.client('LIST'), /db=3/);
  await redis.select(3);
  assert.equal(await redis.get('p:a'), '1');
  await redis.select(0);
  named.disconnect();
}
