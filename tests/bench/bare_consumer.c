/* The floor: a consumer that does nothing with its records, in the cheapest way librdkafka has - every partition's queue
 * forwarded to one, served by a callback - and with the allocator that livenps-consumer is linked with.
 *   bare_consumer --bootstrap=H:P --topic=T --partitions=N --count=N
 * Prints: records, bytes, seconds and CPU seconds from the first record to the last. */

#include "bench.h"

#include <librdkafka/rdkafka.h>

static long records, want, eofs;
static unsigned long bytes;
static double first_at, first_cpu;

static void on_message(rd_kafka_message_t *message, void *opaque) {
  if (message->err) {
    if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
      bench_fail("bare_consumer", rd_kafka_message_errstr(message));
    eofs++;
    return;
  }
  if (!records++) {
    first_at = bench_now();
    first_cpu = bench_cpu();
  }
  bytes += message->len;
  if (records >= want)
    rd_kafka_yield(opaque);
}

int main(int argc, char **argv) {
  char reason[256];
  const char *topic = bench_option(argc, argv, "topic", "bench");
  const int partitions = (int)bench_number(argc, argv, "partitions", "12");
  want = bench_number(argc, argv, "count", "1000000");
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  const char *const set[][2] = {
      {"bootstrap.servers", bench_option(argc, argv, "bootstrap", "127.0.0.1:9092")},
      {"group.id", "bench"},
      {"enable.auto.commit", "false"},
      {"enable.auto.offset.store", "false"},
      {"enable.partition.eof", "true"}};
  for (size_t i = 0; i < sizeof set / sizeof *set; i++)
    if (rd_kafka_conf_set(conf, set[i][0], set[i][1], reason, sizeof reason))
      bench_fail("bare_consumer", reason);
  rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof reason);
  if (!rk)
    bench_fail("bare_consumer", reason);
  rd_kafka_poll_set_consumer(rk);
  rd_kafka_queue_t *data = rd_kafka_queue_new(rk);
  rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
  for (int p = 0; p < partitions; p++) {
    rd_kafka_topic_partition_list_add(list, topic, p)->offset = 0;
    rd_kafka_queue_t *queue = rd_kafka_queue_get_partition(rk, topic, p);
    rd_kafka_queue_forward(queue, data);
    rd_kafka_queue_destroy(queue);
  }
  if (rd_kafka_assign(rk, list))
    bench_fail("bare_consumer", "the partitions could not be assigned");
  const double until = bench_now() + 120;
  while (records < want && bench_now() < until) {
    rd_kafka_consume_callback_queue(data, 100, on_message, rk);
    rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, 0);
    if (message)
      rd_kafka_message_destroy(message);
  }
  if (records < want)
    bench_fail("bare_consumer", "not all records came within two minutes");
  const double seconds = bench_now() - first_at, cpu = bench_cpu() - first_cpu;
  printf("%ld %lu %.6f %.6f\n", records, bytes, seconds, cpu);
  rd_kafka_topic_partition_list_destroy(list);
  rd_kafka_queue_destroy(data);
  rd_kafka_destroy(rk);
  return 0;
}
