"""A broker for one test module, and what was written to it as Apache's own console consumer sees it."""

import os
import subprocess

from cluster import wait_for

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
KAFKA = os.path.join(ROOT, "tests", "kafka")


class Record:
    def __init__(self, timestamp, partition, offset, headers, key, value):
        self.timestamp, self.partition, self.offset = timestamp, partition, offset
        self.headers, self.key, self.value = headers, key, value


class Kafka:
    """private: never the cluster of KAFKA_BOOTSTRAP_SERVERS, for tests that stop the broker."""

    def __init__(self, folder, private=False):
        self.folder = str(folder)
        self.environment = dict(os.environ)
        if private:
            self.environment.pop("KAFKA_BOOTSTRAP_SERVERS", None)
        self.servers = self.run("up", "--dir", self.folder).strip().splitlines()[-1]
        self.topics = 0

    def run(self, *arguments, timeout=400):
        done = subprocess.run([KAFKA, *arguments], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, env=self.environment)
        assert done.returncode == 0, "tests/kafka %s: %s%s" % (" ".join(arguments), done.stdout, done.stderr)
        return done.stdout

    def topic(self, partitions=3, **config):
        """A new topic; retention_ms=-1 is retention.ms=-1."""
        self.topics += 1
        name = "producer-%d-%d" % (os.getpid(), self.topics)
        self.run("topic", "--dir", self.folder, name, str(partitions),
                 *["%s=%s" % (setting.replace("_", "."), value) for setting, value in config.items()])
        return name

    def count(self, topic):
        """Records ever written, by the end offsets: nothing here is transactional or compacted."""
        from confluent_kafka import Consumer, TopicPartition
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "count"})
        try:
            partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
            # A topic that was made a moment ago may not have all of its leaders yet.
            return sum(wait_for(lambda p=p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=30, cached=False),
                                30, "the end of %s/%d" % (topic, p))[1] for p in partitions)
        finally:
            consumer.close()

    def read(self, topic):
        """Every record, in the order of each partition."""
        count = self.count(topic)
        if not count:
            return []
        shown = [part for name in ("key", "timestamp", "partition", "offset", "headers")
                 for part in ("--property", "print.%s=true" % name)]
        text = self.run("console-consumer", "--dir", self.folder, "--topic", topic, "--from-beginning",
                        "--max-messages", str(count), "--timeout-ms", "60000", *shown)
        records = []
        for line in text.splitlines():
            timestamp, partition, offset, headers, key, value = line.split("\t", 5)
            records.append(Record(int(timestamp.split(":")[1]), int(partition.split(":")[1]),
                                  int(offset.split(":")[1]), headers, None if key == "null" else key, value))
        assert len(records) == count
        return records

    def stop(self, kill=False):
        self.run("stop", "1", "--dir", self.folder, *(["--kill"] if kill else []))

    def start(self):
        self.run("start", "1", "--dir", self.folder)

    def down(self):
        self.run("down", "--dir", self.folder)
