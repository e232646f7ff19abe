/* Fills a topic with events of an exact size:
 *   fill --bootstrap=H:P --topic=T --count=N --form=cloudevent|plain --size=BYTES --codec=lz4|none --series=N
 * series: that many touchpoints in turn, instead of the few of the simulated contact centre. */

#include "bench.h"

#include "common/sender.h"

static size_t failed;

static void delivered(void *opaque, void *record, const char *reason, int32_t partition, int64_t offset) {
  (void)opaque, (void)record, (void)partition, (void)offset;
  failed += reason != NULL;
}

int main(int argc, char **argv) {
  livenps_error error = {0};
  livenps_settings settings = {0};
  livenps_sender *sender;
  livenps_generator *generator;
  livenps_generated made;
  livenps_buffer line = {0};
  char setting[200];
  const char *topic = bench_option(argc, argv, "topic", "bench");
  const long count = bench_number(argc, argv, "count", "1000000");
  const bool cloudevent = !strcmp(bench_option(argc, argv, "form", "cloudevent"), "cloudevent");
  const size_t size = (size_t)bench_number(argc, argv, "size", "355");
  const livenps_generator_options options = {.seed = 1,
                                             .touchpoints =
                                                 (int)bench_number(argc, argv, "touchpoints", "24"),
                                             .start_ms = livenps_wall_ms(),
                                             .incident_at = LIVENPS_NO_INCIDENT};
  const long series = bench_number(argc, argv, "series", "0");
  char touchpoint[32];
  livenps_settings_default(&settings);
  snprintf(setting, sizeof setting, "kafka.bootstrap.servers=%s",
           bench_option(argc, argv, "bootstrap", "127.0.0.1:9092"));
  if (livenps_settings_set(&settings, setting, &error))
    bench_fail("fill", error.text);
  snprintf(setting, sizeof setting, "kafka.compression.codec=%s", bench_option(argc, argv, "codec", "none"));
  if (livenps_settings_set(&settings, setting, &error) ||
      livenps_settings_set(&settings, "kafka.linger.ms=50", &error) ||
      livenps_settings_set(&settings, "kafka.batch.size=262144", &error) ||
      livenps_sender_open(&sender, &settings, 0, delivered, NULL, &error) ||
      livenps_generator_open(&generator, &options, &error))
    bench_fail("fill", error.text);
  for (long i = 0; i < count; i++) {
    livenps_generator_next(generator, livenps_wall_ms(), &made);
    if (series)
      made.event.dimensions[LIVENPS_TOUCHPOINT] = (livenps_text){
          touchpoint, (size_t)snprintf(touchpoint, sizeof touchpoint, "touchpoint-%ld", i % series)};
    bench_event(&made.event, cloudevent, size, &line);
    if (livenps_sender_send(sender, topic, -1, livenps_event_key(&made.event),
                            (livenps_text){line.at, line.length}, NULL, 0, 0, NULL, 30000, &error))
      bench_fail("fill", error.text);
    if (i % 1000 == 0)
      livenps_sender_poll(sender, 0);
  }
  if (livenps_sender_flush(sender, 60000, &error) || failed)
    bench_fail("fill", failed ? "records failed" : error.text);
  livenps_generator_close(generator);
  livenps_sender_close(sender);
  livenps_buffer_free(&line);
  livenps_settings_free(&settings);
  return 0;
}
