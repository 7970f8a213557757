// kafkajs against a broker: sends in a codec, reads back as a member of a group, commits, resumes.
//
//   node roundtrip.js MODULES BOOTSTRAP TOPIC GROUP CODEC COUNT
//
// Prints one JSON object: what came back, what was committed, what a second member read.
'use strict'
const [modules, bootstrap, topic, groupId, codec, countText] = process.argv.slice(2)
const { createRequire } = require('node:module')
const load = createRequire(`${modules}/`)
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = load('kafkajs')
CompressionCodecs[CompressionTypes.Snappy] = load('kafkajs-snappy')
// The codec's class wants to be made; kafkajs wants a function that gives one.
if (codec === 'LZ4') {
  const LZ4 = load('kafkajs-lz4')
  CompressionCodecs[CompressionTypes.LZ4] = new LZ4().codec
}

const count = Number(countText)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.ERROR })

function message (i) {
  return {
    key: i % 3 === 0 ? null : `key-${i}`,
    value: i % 7 === 1 ? null : 'v'.repeat(i % 50) + i,
    headers: { n: String(i), empty: '' },
    timestamp: String(1700000000000 + i)
  }
}

async function read (wanted, onMessage) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6000, heartbeatInterval: 1000 })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  const got = []
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, event => reject(event.payload.error))
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        got.push({
          partition,
          offset: message.offset,
          key: message.key && message.key.toString(),
          value: message.value && message.value.toString(),
          timestamp: message.timestamp,
          headers: Object.fromEntries(
            Object.entries(message.headers).map(([name, value]) => [name, value.toString()]))
        })
        if (onMessage) await onMessage(consumer, partition, message)
        if (got.length === wanted) resolve()
      }
    }).catch(reject)
  })
  await consumer.disconnect()
  return got
}

async function main () {
  const admin = kafka.admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 2 }], waitForLeaders: true })
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 })
  await producer.connect()
  const compression = CompressionTypes[codec]
  const sent = Array.from({ length: count }, (_, i) => message(i))
  await producer.send({ topic, compression, messages: sent.map((m, i) => ({ ...m, partition: i % 2 })) })
  const first = await read(count)
  const committed = await admin.fetchOffsets({ groupId, topics: [topic] })
  await producer.send({ topic, compression, messages: [{ partition: 0, value: 'late' }] })
  const second = await read(1)
  const description = await admin.describeGroups([groupId])
  const offsets = await admin.fetchTopicOffsets(topic)
  const byTime = await admin.fetchTopicOffsetsByTimestamp(topic, 1700000000000 + count - 2)
  await producer.disconnect()
  await admin.deleteGroups([groupId])
  await admin.deleteTopics({ topics: [topic] })
  await admin.disconnect()
  console.log(JSON.stringify({
    sent, first, committed, second, offsets, byTime, state: description.groups[0].state
  }))
}

main().catch(error => { console.error(error); process.exit(1) })
