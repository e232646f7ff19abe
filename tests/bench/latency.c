/* From an event handed to Kafka's client to its count in a Redis view, against a running livenps-consumer:
 *   latency --bootstrap=H:P --redis=URL --topic=T --namespace=NS --rate=N --seconds=N
 * Sends interactions one by one at uneven distances (so that they do not fall in step with commits and ticks) and asks for the
 * view all:all:5m about every millisecond; the n-th event is visible when interactions has risen by n. */

#include "bench.h"

#include "common/sender.h"
#include "consumer/redis.h"

#include <unistd.h>

static int64_t interactions(livenps_redis *redis, const char *namespace_, livenps_error *error) {
  int64_t count = 0;
  livenps_reply *reply =
      livenps_redis_commandf(redis, error, "HGET nps:{%s}:all:all:5m interactions", namespace_);
  if (!reply)
    bench_fail("latency", error->text);
  if (!livenps_reply_is_nil(reply))
    livenps_reply_integer(reply, &count);
  livenps_reply_free(reply);
  return count;
}

static int by_value(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  livenps_error error = {0};
  livenps_settings settings = {0};
  livenps_sender *sender;
  livenps_redis *redis;
  char setting[300], json[200], id[32], time[32];
  const char *namespace_ = bench_option(argc, argv, "namespace", "bench"),
             *topic = bench_option(argc, argv, "topic", "bench");
  const long rate = bench_number(argc, argv, "rate", "50"),
             seconds = bench_number(argc, argv, "seconds", "20");
  const size_t count = (size_t)(rate * seconds);
  livenps_settings_default(&settings);
  snprintf(setting, sizeof setting, "kafka.bootstrap.servers=%s",
           bench_option(argc, argv, "bootstrap", "127.0.0.1:9092"));
  if (livenps_settings_set(&settings, setting, &error))
    bench_fail("latency", error.text);
  snprintf(setting, sizeof setting, "redis.url=%s",
           bench_option(argc, argv, "redis", "redis://127.0.0.1:6379"));
  if (livenps_settings_set(&settings, setting, &error) ||
      livenps_settings_set(&settings, "kafka.linger.ms=0", &error) ||
      livenps_sender_open(&sender, &settings, 0, NULL, NULL, &error) ||
      livenps_redis_open(&redis, &settings, &error))
    bench_fail("latency", error.text);

  double *sent = livenps_alloc((count + 1) * sizeof *sent), *took = livenps_alloc((count + 1) * sizeof *took);
  size_t made = 0, seen = 0;
  uint64_t random = 1;
  const int64_t before = interactions(redis, namespace_, &error);
  double due = bench_now();
  const double until = due + (double)seconds + 30;
  while (seen < count && bench_now() < until) {
    const double now = bench_now();
    if (made < count && now >= due) {
      snprintf(id, sizeof id, "latency-%zu", made);
      const int length =
          snprintf(json, sizeof json,
                   "{\"id\":\"%s\",\"type\":\"interaction\",\"time\":\"%s\",\"touchpoint\":\"latency\"}", id,
                   livenps_time_print(livenps_wall_ms(), time));
      sent[made++] = now;
      if (livenps_sender_send(sender, topic, -1, livenps_text_of(id), (livenps_text){json, (size_t)length},
                              NULL, 0, 0, NULL, 1000, &error))
        bench_fail("latency", error.text);
      /* Between half and one and a half of the mean distance. */
      due += (0.5 + (double)livenps_random_below(&random, 1000) / 1000) / (double)rate;
    }
    livenps_sender_poll(sender, 0);
    const int64_t visible = interactions(redis, namespace_, &error) - before;
    for (const double at = bench_now(); seen < count && (int64_t)seen < visible; seen++)
      took[seen] = (at - sent[seen]) * 1e3;
    usleep(1000);
  }
  if (seen < count)
    bench_fail("latency", "not every event became visible within 30 s");
  qsort(took, count, sizeof *took, by_value);
  printf("events %zu p50_ms %.1f p90_ms %.1f p99_ms %.1f max_ms %.1f\n", count, took[count / 2],
         took[count * 9 / 10], took[count * 99 / 100], took[count - 1]);
  free(sent);
  free(took);
  livenps_sender_close(sender);
  livenps_redis_close(redis);
  livenps_settings_free(&settings);
  return 0;
}
