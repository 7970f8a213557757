// Kafka's own Java clients against a broker: java Clients BOOTSTRAP SCENARIO [ARG ...].
// Every scenario ends with "ok" on standard output, or with an exception and status 1.

import java.time.Duration;
import java.util.*;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.stream.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.header.*;
import org.apache.kafka.common.serialization.*;

public class Clients {
  static String bootstrap;
  static final long T0 = 1_700_000_000_000L;

  public static void main(String[] args) throws Exception {
    bootstrap = args[0];
    for (String scenario : Arrays.copyOfRange(args, 1, args.length)) {
      long began = System.currentTimeMillis();
      switch (scenario) {
        case "codecs": codecs(); break;
        case "large": large(); break;
        case "seeking": seeking(); break;
        case "pausing": pausing(); break;
        case "cooperative": joinAndLeave(CooperativeStickyAssignor.class); break;
        case "eager": joinAndLeave(RangeAssignor.class); break;
        case "commits": commits(); break;
        case "static": staticMember(); break;
        case "topics": topics(); break;
        case "configs": configs(); break;
        case "offsets": offsets(); break;
        case "groups": groups(); break;
        case "cluster": cluster(); break;
        case "transactions": transactions(); break;
        default: throw new IllegalArgumentException(scenario);
      }
      System.out.println("ok " + scenario + " " + (System.currentTimeMillis() - began) + " ms");
    }
    System.exit(0);
  }

  // What every scenario uses.

  static String fresh(String prefix) {
    return prefix + "-" + UUID.randomUUID().toString().substring(0, 8);
  }

  static void check(boolean holds, Object... told) {
    if (!holds) throw new AssertionError(Arrays.deepToString(told));
  }

  static void same(Object expected, Object found) {
    check(Objects.equals(expected, found), "expected", expected, "found", found);
  }

  static Properties with(Object... pairs) {
    Properties p = new Properties();
    p.put("bootstrap.servers", bootstrap);
    for (int i = 0; i < pairs.length; i += 2) p.put(pairs[i], pairs[i + 1]);
    return p;
  }

  static Admin admin() {
    return Admin.create(with());
  }

  static KafkaProducer<byte[], byte[]> producer(Object... pairs) {
    return new KafkaProducer<>(with(pairs), new ByteArraySerializer(), new ByteArraySerializer());
  }

  static KafkaConsumer<byte[], byte[]> consumer(Object... pairs) {
    Properties p = with(pairs);
    p.putIfAbsent("auto.offset.reset", "earliest");
    p.putIfAbsent("enable.auto.commit", "false");
    return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
  }

  static String topic(int partitions) throws Exception {
    String name = fresh("java");
    try (Admin admin = admin()) {
      admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1))).all().get();
    }
    return name;
  }

  static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> c, int count) {
    List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
    long deadline = System.currentTimeMillis() + 30_000;
    while (got.size() < count && System.currentTimeMillis() < deadline)
      for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(200))) got.add(r);
    same(count, got.size());
    return got;
  }

  static void fill(String topic, int partition, int count) throws Exception {
    try (KafkaProducer<byte[], byte[]> p = producer()) {
      for (int i = 0; i < count; i++)
        p.send(new ProducerRecord<>(topic, partition, T0 + i, null, Integer.toString(i).getBytes()));
    }
  }

  static <E extends Exception> E failure(Class<E> kind, KafkaFuture<?> future) throws Exception {
    try {
      future.get();
    } catch (ExecutionException e) {
      check(kind.isInstance(e.getCause()), "expected", kind.getName(), "found", e.getCause());
      return kind.cast(e.getCause());
    }
    throw new AssertionError("no " + kind.getName());
  }

  static String text(byte[] bytes) {
    return bytes == null ? null : new String(bytes);
  }

  // Records.

  /** Keys, headers, tombstones, empty values and timestamps, in every codec, in and out. */
  static void codecs() throws Exception {
    for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
      String topic = topic(1);
      List<Future<RecordMetadata>> told = new ArrayList<>();
      try (KafkaProducer<byte[], byte[]> p = producer("compression.type", codec, "linger.ms", 5)) {
        for (int i = 0; i < 300; i++) {
          byte[] key = i % 4 == 0 ? null : ("key-" + i).getBytes();
          byte[] value = i % 5 == 1 ? null : i % 5 == 2 ? new byte[0] : "v".repeat(i).getBytes();
          ProducerRecord<byte[], byte[]> r = new ProducerRecord<>(topic, 0, T0 + i, key, value);
          r.headers().add("n", Integer.toString(i).getBytes()).add("null", null).add("n", new byte[0]);
          told.add(p.send(r));
        }
      }
      for (int i = 0; i < 300; i++) same((long) i, told.get(i).get().offset());
      try (KafkaConsumer<byte[], byte[]> c = consumer()) {
        c.assign(List.of(new TopicPartition(topic, 0)));
        c.seekToBeginning(c.assignment());
        int i = 0;
        for (ConsumerRecord<byte[], byte[]> r : poll(c, 300)) {
          same((long) i, r.offset());
          same(T0 + i, r.timestamp());
          same(i % 4 == 0 ? null : "key-" + i, text(r.key()));
          same(i % 5 == 1 ? null : i % 5 == 2 ? "" : "v".repeat(i), text(r.value()));
          Header[] headers = r.headers().toArray();
          same(List.of("n", "null", "n"), Stream.of(headers).map(Header::key).collect(Collectors.toList()));
          same(Integer.toString(i), text(headers[0].value()));
          same(null, headers[1].value());
          same("", text(headers[2].value()));
          same(Optional.of(0), r.leaderEpoch());
          i++;
        }
      }
    }
  }

  /** 1 MiB records come back whole; one above the topic's bound is refused as too large. */
  static void large() throws Exception {
    String topic = topic(1);
    try (Admin admin = admin()) {
      admin.incrementalAlterConfigs(Map.of(
          new ConfigResource(ConfigResource.Type.TOPIC, topic),
          List.of(new AlterConfigOp(
              new ConfigEntry("max.message.bytes", "2097152"), AlterConfigOp.OpType.SET)))).all().get();
    }
    Random random = new Random(1);
    List<byte[]> sent = new ArrayList<>();
    try (KafkaProducer<byte[], byte[]> p =
        producer("max.request.size", 8 << 20, "buffer.memory", 64L << 20)) {
      for (int i = 0; i < 8; i++) {
        byte[] value = new byte[1 << 20];
        random.nextBytes(value);
        sent.add(value);
        p.send(new ProducerRecord<>(topic, 0, null, value));
      }
      p.flush();
      try {
        p.send(new ProducerRecord<>(topic, 0, null, new byte[3 << 20])).get();
        throw new AssertionError("3 MiB were taken");
      } catch (ExecutionException e) {
        check(e.getCause() instanceof RecordTooLargeException, e.getCause());
      }
    }
    // A fetch limit below the record still brings it.
    try (KafkaConsumer<byte[], byte[]> c = consumer("max.partition.fetch.bytes", 1000)) {
      c.assign(List.of(new TopicPartition(topic, 0)));
      c.seekToBeginning(c.assignment());
      List<ConsumerRecord<byte[], byte[]>> got = poll(c, 8);
      for (int i = 0; i < 8; i++) check(Arrays.equals(sent.get(i), got.get(i).value()), i);
    }
  }

  static void seeking() throws Exception {
    String topic = topic(2);
    TopicPartition zero = new TopicPartition(topic, 0), one = new TopicPartition(topic, 1);
    fill(topic, 0, 100);
    try (KafkaConsumer<byte[], byte[]> c = consumer("max.poll.records", 10)) {
      same(Map.of(zero, 0L, one, 0L), c.beginningOffsets(List.of(zero, one)));
      same(Map.of(zero, 100L, one, 0L), c.endOffsets(List.of(zero, one)));
      Map<TopicPartition, OffsetAndTimestamp> found =
          c.offsetsForTimes(Map.of(zero, T0 + 43, one, T0));
      same(43L, found.get(zero).offset());
      same(T0 + 43, found.get(zero).timestamp());
      same(null, found.get(one));
      same(null, c.offsetsForTimes(Map.of(zero, T0 + 100)).get(zero));
      c.assign(List.of(zero, one));
      c.seek(zero, 90);
      same("90", text(poll(c, 10).get(0).value()));
      c.seekToBeginning(List.of(zero));
      same("0", text(poll(c, 10).get(0).value()));
      c.seekToEnd(List.of(zero));
      same(100L, c.position(zero));
      c.seek(zero, new OffsetAndMetadata(50, Optional.of(0), ""));
      same("50", text(poll(c, 10).get(0).value()));
      same(OptionalLong.of(40), c.currentLag(zero));
    }
    try (KafkaConsumer<byte[], byte[]> c = consumer("auto.offset.reset", "none")) {
      c.assign(List.of(zero));
      c.seek(zero, 1000);
      try {
        for (int i = 0; i < 100; i++) c.poll(Duration.ofMillis(200));
        throw new AssertionError("offset 1000 was read");
      } catch (org.apache.kafka.clients.consumer.OffsetOutOfRangeException e) {
        same(Set.of(zero), e.partitions());
      }
    }
  }

  static void pausing() throws Exception {
    String topic = topic(2);
    TopicPartition zero = new TopicPartition(topic, 0), one = new TopicPartition(topic, 1);
    fill(topic, 0, 50);
    fill(topic, 1, 50);
    try (KafkaConsumer<byte[], byte[]> c = consumer()) {
      c.assign(List.of(zero, one));
      c.seekToBeginning(List.of(zero, one));
      c.pause(List.of(zero));
      for (ConsumerRecord<byte[], byte[]> r : poll(c, 50)) same(1, r.partition());
      check(c.poll(Duration.ofMillis(500)).isEmpty());
      c.resume(List.of(zero));
      for (ConsumerRecord<byte[], byte[]> r : poll(c, 50)) same(0, r.partition());
    }
  }

  // Groups.

  static class Member extends Thread implements ConsumerRebalanceListener {
    final KafkaConsumer<byte[], byte[]> consumer;
    final Set<TopicPartition> owned = ConcurrentHashMap.newKeySet();
    final Set<String> seen = ConcurrentHashMap.newKeySet();
    final List<Set<TopicPartition>> revocations = new CopyOnWriteArrayList<>();
    volatile boolean leaving;
    volatile Throwable failure;

    Member(String topic, Object... pairs) {
      consumer = consumer(pairs);
      consumer.subscribe(List.of(topic), this);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
      owned.addAll(partitions);
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
      if (!leaving && !partitions.isEmpty()) revocations.add(new HashSet<>(partitions));
      owned.removeAll(partitions);
    }

    @Override
    public void run() {
      try {
        while (!leaving) {
          for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(100)))
            seen.add(r.partition() + ":" + text(r.value()));
          try {
            consumer.commitSync();
          } catch (RebalanceInProgressException | CommitFailedException e) {
            // The next poll rejoins.
          }
        }
      } catch (Throwable e) {
        failure = e;
      } finally {
        consumer.close();
      }
    }

    void leave() throws Exception {
      leaving = true;
      join(30_000);
      check(!isAlive(), "a member hangs");
      if (failure != null) throw new AssertionError(failure);
    }
  }

  static void await(String what, Callable<Boolean> holds) throws Exception {
    long deadline = System.currentTimeMillis() + 30_000;
    while (!holds.call()) {
      check(System.currentTimeMillis() < deadline, "waited in vain", what);
      Thread.sleep(50);
    }
  }

  /** Members come and go; each partition has one owner, and no record is missed. */
  static void joinAndLeave(Class<?> assignor) throws Exception {
    String topic = topic(4), group = fresh("group");
    Object[] config = {
      "group.id", group, "partition.assignment.strategy", assignor.getName(),
      "session.timeout.ms", 6000, "heartbeat.interval.ms", 500
    };
    for (int partition = 0; partition < 4; partition++) fill(topic, partition, 20);
    Member one = new Member(topic, config);
    one.start();
    await("all", () -> one.owned.size() == 4 && one.seen.size() == 80);
    Member two = new Member(topic, config);
    two.start();
    await("halves", () -> one.owned.size() == 2 && two.owned.size() == 2);
    Set<TopicPartition> both = new HashSet<>(one.owned);
    both.addAll(two.owned);
    same(4, both.size());
    if (assignor == CooperativeStickyAssignor.class)
      for (Set<TopicPartition> revoked : one.revocations) same(2, revoked.size());
    else same(4, one.revocations.get(0).size());
    one.leave();
    await("all again", () -> two.owned.size() == 4);
    try (KafkaProducer<byte[], byte[]> p = producer()) {
      for (int partition = 0; partition < 4; partition++)
        p.send(new ProducerRecord<>(topic, partition, null, "late".getBytes()));
    }
    await("late ones", () -> two.seen.size() == 4);
    two.leave();
  }

  static void commits() throws Exception {
    String topic = topic(1), group = fresh("group");
    TopicPartition zero = new TopicPartition(topic, 0);
    fill(topic, 0, 100);
    try (KafkaConsumer<byte[], byte[]> c = consumer("group.id", group, "max.poll.records", 10)) {
      c.subscribe(List.of(topic));
      poll(c, 10);
      c.commitSync(Map.of(zero, new OffsetAndMetadata(7, Optional.of(0), "note")));
      OffsetAndMetadata kept = c.committed(Set.of(zero)).get(zero);
      same(7L, kept.offset());
      same("note", kept.metadata());
      same(Optional.of(0), kept.leaderEpoch());
      CompletableFuture<Exception> done = new CompletableFuture<>();
      c.commitAsync(Map.of(zero, new OffsetAndMetadata(8)), (offsets, error) -> done.complete(error));
      while (!done.isDone()) c.poll(Duration.ofMillis(50));
      same(null, done.get());
    }
    // Automatic: by interval, and when it leaves.
    try (KafkaConsumer<byte[], byte[]> c = consumer(
        "group.id", group, "enable.auto.commit", "true", "auto.commit.interval.ms", 100,
        "max.poll.records", 10)) {
      c.subscribe(List.of(topic));
      same("8", text(poll(c, 10).get(0).value()));
    }
    try (KafkaConsumer<byte[], byte[]> c = consumer("group.id", group, "max.poll.records", 10)) {
      c.subscribe(List.of(topic));
      same("18", text(poll(c, 10).get(0).value()));
    }
  }

  /** A static member that restarts gets its partitions back without a rebalance of the rest. */
  static void staticMember() throws Exception {
    String topic = topic(2), group = fresh("group");
    Object[] config = {"group.id", group, "session.timeout.ms", 10000, "heartbeat.interval.ms", 500};
    Member stays = new Member(topic, concat(config, "group.instance.id", "a"));
    Member restarts = new Member(topic, concat(config, "group.instance.id", "b"));
    stays.start();
    restarts.start();
    await("both", () -> stays.owned.size() == 1 && restarts.owned.size() == 1);
    Set<TopicPartition> owned = new HashSet<>(restarts.owned);
    int revocations = stays.revocations.size();
    restarts.leave();
    Member again = new Member(topic, concat(config, "group.instance.id", "b"));
    again.start();
    await("again", () -> again.owned.size() == 1);
    same(owned, new HashSet<>(again.owned));
    same(revocations, stays.revocations.size());
    again.leave();
    stays.leave();
    try (Admin admin = admin()) {
      admin.removeMembersFromConsumerGroup(group, new RemoveMembersFromConsumerGroupOptions()).all().get();
      same(0, admin.describeConsumerGroups(List.of(group)).all().get().get(group).members().size());
    }
  }

  static Object[] concat(Object[] pairs, Object... more) {
    return Stream.concat(Stream.of(pairs), Stream.of(more)).toArray();
  }

  // Administration.

  static void topics() throws Exception {
    try (Admin admin = admin()) {
      String name = fresh("java");
      NewTopic wanted =
          new NewTopic(name, 3, (short) 1).configs(Map.of("retention.ms", "60000"));
      CreateTopicsResult made = admin.createTopics(List.of(wanted));
      made.all().get();
      same(3, made.numPartitions(name).get());
      same("60000", made.config(name).get().get("retention.ms").value());
      Uuid id = made.topicId(name).get();
      failure(TopicExistsException.class, admin.createTopics(List.of(wanted)).all());
      failure(InvalidTopicException.class,
          admin.createTopics(List.of(new NewTopic("no/name", 1, (short) 1))).all());
      failure(InvalidPartitionsException.class,
          admin.createTopics(List.of(new NewTopic(fresh("java"), 0, (short) 1))).all());
      String only = fresh("java");
      admin.createTopics(
          List.of(new NewTopic(only, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get();
      failure(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(only)).allTopicNames());
      TopicDescription told = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
      same(id, told.topicId());
      same(3, told.partitions().size());
      for (TopicPartitionInfo p : told.partitions()) {
        same(1, p.leader().id());
        same(List.of(1), p.isr().stream().map(Node::id).collect(Collectors.toList()));
      }
      same(name, admin.describeTopics(TopicCollection.ofTopicIds(List.of(id)))
          .allTopicIds().get().get(id).name());
      check(admin.listTopics().names().get().contains(name));
      admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all().get();
      same(5, admin.describeTopics(List.of(name)).allTopicNames().get().get(name).partitions().size());
      failure(InvalidPartitionsException.class,
          admin.createPartitions(Map.of(name, NewPartitions.increaseTo(2))).all());
      admin.deleteTopics(List.of(name)).all().get();
      failure(UnknownTopicOrPartitionException.class, admin.describeTopics(List.of(name)).allTopicNames());
      failure(UnknownTopicOrPartitionException.class, admin.deleteTopics(List.of(name)).all());
    }
  }

  static void configs() throws Exception {
    String topic = topic(1);
    ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    try (Admin admin = admin()) {
      admin.incrementalAlterConfigs(Map.of(resource, List.of(
          new AlterConfigOp(new ConfigEntry("retention.bytes", "1000000"), AlterConfigOp.OpType.SET),
          new AlterConfigOp(new ConfigEntry("min.insync.replicas", "2"), AlterConfigOp.OpType.SET)))).all().get();
      Config config = admin.describeConfigs(List.of(resource)).all().get().get(resource);
      same("1000000", config.get("retention.bytes").value());
      same(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, config.get("retention.bytes").source());
      same(ConfigEntry.ConfigSource.DEFAULT_CONFIG, config.get("retention.ms").source());
      admin.incrementalAlterConfigs(Map.of(resource, List.of(
          new AlterConfigOp(new ConfigEntry("retention.bytes", null), AlterConfigOp.OpType.DELETE)))).all().get();
      same("-1", admin.describeConfigs(List.of(resource)).all().get().get(resource).get("retention.bytes").value());
      failure(InvalidConfigurationException.class, admin.incrementalAlterConfigs(Map.of(resource, List.of(
          new AlterConfigOp(new ConfigEntry("no.such.key", "1"), AlterConfigOp.OpType.SET)))).all());
      ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, "1");
      check(admin.describeConfigs(List.of(broker)).all().get().get(broker).entries().size() > 50);
    }
  }

  static void offsets() throws Exception {
    String topic = topic(1);
    TopicPartition zero = new TopicPartition(topic, 0);
    fill(topic, 0, 100);
    try (Admin admin = admin()) {
      same(0L, offset(admin, zero, OffsetSpec.earliest()));
      same(100L, offset(admin, zero, OffsetSpec.latest()));
      same(31L, offset(admin, zero, OffsetSpec.forTimestamp(T0 + 31)));
      same(99L, offset(admin, zero, OffsetSpec.maxTimestamp()));
      same(0L, offset(admin, zero, OffsetSpec.earliestLocal()));
      same(-1L, offset(admin, zero, OffsetSpec.latestTiered()));
      same(10L, admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(10)))
          .lowWatermarks().get(zero).get().lowWatermark());
      same(10L, offset(admin, zero, OffsetSpec.earliest()));
      failure(org.apache.kafka.common.errors.OffsetOutOfRangeException.class,
          admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(500))).all());
      try (KafkaConsumer<byte[], byte[]> c = consumer()) {
        c.assign(List.of(zero));
        c.seek(zero, 0);
        same("10", text(poll(c, 90).get(0).value()));
      }
      admin.deleteRecords(Map.of(zero, RecordsToDelete.beforeOffset(-1))).all().get();
      same(100L, offset(admin, zero, OffsetSpec.earliest()));
    }
  }

  static long offset(Admin admin, TopicPartition p, OffsetSpec spec) throws Exception {
    return admin.listOffsets(Map.of(p, spec)).partitionResult(p).get().offset();
  }

  static void groups() throws Exception {
    String topic = topic(2), group = fresh("group");
    TopicPartition zero = new TopicPartition(topic, 0), one = new TopicPartition(topic, 1);
    fill(topic, 0, 20);
    Member member = new Member(topic, "group.id", group, "client.id", "the-member");
    member.start();
    await("owned", () -> member.owned.size() == 2 && member.seen.size() == 20);
    try (Admin admin = admin()) {
      ConsumerGroupDescription told =
          admin.describeConsumerGroups(List.of(group)).all().get().get(group);
      same(GroupState.STABLE, told.groupState());
      same("range", told.partitionAssignor());
      same(1, told.members().size());
      MemberDescription m = told.members().iterator().next();
      same("the-member", m.clientId());
      same(Set.of(zero, one), m.assignment().topicPartitions());
      check(admin.listGroups().all().get().stream().anyMatch(
          g -> g.groupId().equals(group) && g.type().equals(Optional.of(GroupType.CLASSIC))));
      failure(GroupNotEmptyException.class, admin.deleteConsumerGroups(List.of(group)).all());
      await("committed", () -> {
        OffsetAndMetadata kept = admin.listConsumerGroupOffsets(group)
            .partitionsToOffsetAndMetadata(group).get().get(zero);
        return kept != null && kept.offset() == 20;
      });
      member.leave();
      same(GroupState.EMPTY,
          admin.describeConsumerGroups(List.of(group)).all().get().get(group).groupState());
      admin.alterConsumerGroupOffsets(group, Map.of(zero, new OffsetAndMetadata(5))).all().get();
      same(5L, admin.listConsumerGroupOffsets(group)
          .partitionsToOffsetAndMetadata(group).get().get(zero).offset());
      admin.deleteConsumerGroupOffsets(group, Set.of(one)).all().get();
      same(Set.of(zero), admin.listConsumerGroupOffsets(group)
          .partitionsToOffsetAndMetadata(group).get().keySet());
      admin.deleteConsumerGroups(List.of(group)).all().get();
      failure(GroupIdNotFoundException.class, admin.deleteConsumerGroups(List.of(group)).all());
    }
  }

  static void cluster() throws Exception {
    String topic = topic(1);
    fill(topic, 0, 10);
    TopicPartition zero = new TopicPartition(topic, 0);
    try (Admin admin = admin()) {
      DescribeClusterResult told = admin.describeCluster();
      same(22, told.clusterId().get().length());
      same(1, told.nodes().get().size());
      Node node = told.controller().get();
      same(bootstrap, node.host() + ":" + node.port());
      Map<String, LogDirDescription> dirs =
          admin.describeLogDirs(List.of(1)).allDescriptions().get().get(1);
      check(dirs.values().stream().anyMatch(
          d -> d.replicaInfos().containsKey(zero) && d.replicaInfos().get(zero).size() > 0));
      DescribeProducersResult.PartitionProducerState producers =
          admin.describeProducers(List.of(zero)).partitionResult(zero).get();
      same(1, producers.activeProducers().size());
      same(9, producers.activeProducers().get(0).lastSequence());
      check(admin.describeFeatures().featureMetadata().get() != null);
      same(1, admin.describeMetadataQuorum().quorumInfo().get().leaderId());
      check(!admin.listConfigResources().all().get().isEmpty());
      failure(ElectionNotNeededException.class,
          admin.electLeaders(ElectionType.PREFERRED, Set.of(zero)).partitions()
              .thenApply(m -> { m.get(zero).ifPresent(e -> { throw (RuntimeException) e; }); return 0; }));
    }
  }

  /** Until there are transactions they fail at once, not after a time-out. */
  static void transactions() throws Exception {
    try (KafkaProducer<byte[], byte[]> p = producer("transactional.id", fresh("tx"), "max.block.ms", 20000)) {
      p.initTransactions();
      throw new AssertionError("transactions began");
    } catch (TimeoutException e) {
      throw new AssertionError("it timed out", e);
    } catch (KafkaException e) {
      System.out.println("refused: " + e);
    }
  }
}
