#ifndef LIVENPS_INTAKE_H
#define LIVENPS_INTAKE_H

#include "common/sender.h"

/* Events that came from outside and are on their way to the broker. Those of one request are a parcel; it is answered when each of them is
 * acknowledged.
 *
 * A request that is not answered 2xx says nothing about its events: the broker may have them, or get them when it is back, and whoever sent them
 * sends them again. So an event is remembered until somebody was told that it is written:
 *
 *    handed over -> acknowledged -> told: forgotten
 *         \             \_ asked for again (the same bytes for the same topic): not sent again, only told
 *          \_ asked for again: waits for the same acknowledgement
 *
 * Invariant: of equal events in one or several requests, as many are written as the largest number that one of them holds, as long as none was
 * told before the next was asked for. Within one request equal events are several. One thread. */
typedef struct livenps_intake livenps_intake;
typedef struct livenps_parcel livenps_parcel;

enum {
  LIVENPS_INTAKE_RECORD_BYTES = 640,  /* what one record costs beside its bytes, here and in librdkafka */
  LIVENPS_INTAKE_MAX_RECORDS = 80000, /* on their way; librdkafka's queue takes 100,000 */
  LIVENPS_INTAKE_UNTOLD_MAX = 100000, /* acknowledged and not told; beyond that the oldest is forgotten, */
  LIVENPS_INTAKE_UNTOLD_MS = 60 * 60 * 1000 /* or after an hour */
};

/* most_bytes: of the records on their way. */
int livenps_intake_open(livenps_intake **out, const livenps_settings *settings, size_t most_bytes,
                        livenps_error *error);
/* Drops what is on its way; all parcels have ended. NULL is fine. */
void livenps_intake_close(livenps_intake *intake);
livenps_sender *livenps_intake_sender(livenps_intake *intake);
/* Readable when there is something to poll for. */
int livenps_intake_socket(const livenps_intake *intake);
/* Serves acknowledgements; forgets what was told to nobody for long. */
void livenps_intake_poll(livenps_intake *intake, int64_t now_ms);

/* Is there room for that many records, with that many bytes of keys and values, beside what is on its way? */
bool livenps_intake_room(const livenps_intake *intake, size_t records, size_t bytes);
/* Would they fit if nothing else was on its way? */
bool livenps_intake_fits(const livenps_intake *intake, size_t records, size_t bytes);

livenps_parcel *livenps_parcel_begin(livenps_intake *intake);
/* Hands an event over, or joins the same one of an earlier parcel. topic lives as long as the intake, and equal topics are the same pointer. -1:
 * LOST when librdkafka's queue is full, REFUSED or DATA when it never takes this one. */
int livenps_parcel_add(livenps_intake *intake, livenps_parcel *parcel, const char *topic, livenps_text key,
                       livenps_text value, int64_t timestamp_ms, livenps_error *error);
typedef enum {
  LIVENPS_PARCEL_WAITING,
  LIVENPS_PARCEL_ACKNOWLEDGED,
  LIVENPS_PARCEL_REFUSED
} livenps_parcel_state;
/* Of all its events; REFUSED as soon as the broker refused one, then *why says what it said. */
livenps_parcel_state livenps_parcel_look(livenps_parcel *parcel, const char **why);
/* told: whoever sent them knows that they are written. */
void livenps_parcel_end(livenps_intake *intake, livenps_parcel *parcel, bool told);

/* Acknowledged events that nobody was told of yet, for the tests and the statistics. */
size_t livenps_intake_untold(const livenps_intake *intake);

#endif
