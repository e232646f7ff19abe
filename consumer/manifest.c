#include "manifest.h"

#include "../common/log.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

void livenps_manifest_free(livenps_manifest *manifest) {
  for (size_t i = 0; i < manifest->partition_count; i++)
    free(manifest->partitions[i].topic);
  for (size_t i = 0; i < manifest->chunk_count; i++) {
    free(manifest->chunks[i].name);
    free(manifest->chunks[i].id);
  }
  free(manifest->partitions);
  free(manifest->chunks);
  *manifest = (livenps_manifest){0};
}

void livenps_manifest_positions(livenps_manifest *manifest, const livenps_partition *ledger, size_t count) {
  manifest->partitions = livenps_alloc((count + 1) * sizeof *manifest->partitions);
  manifest->partition_count = count;
  for (size_t i = 0; i < count; i++)
    manifest->partitions[i] =
        (livenps_manifest_partition){livenps_copy(ledger[i].topic, strlen(ledger[i].topic)),
                                     ledger[i].partition, ledger[i].position, ledger[i].start, ledger[i].gap};
}

/* -- out ---------------------------------------------------------------------------------------------------------- */

static int collect(const char *bytes, size_t length, void *opaque) {
  livenps_buffer_add(opaque, bytes, length);
  return 0;
}

/* Out of memory is no state to go on in (error.h); jansson only says NULL. */
static json_t *made(json_t *value) {
  if (!value)
    livenps_alloc(SIZE_MAX / 2);
  return value;
}

static void set(json_t *object, const char *name, json_t *value) {
  if (json_object_set_new(object, name, made(value)))
    made(NULL);
}

void livenps_manifest_encode(const livenps_manifest *manifest, livenps_buffer *out) {
  json_t *root = made(json_object()), *partitions = made(json_array()), *chunks = made(json_array());
  set(root, "format", json_integer(LIVENPS_MANIFEST_FORMAT));
  set(root, "version", json_integer(manifest->version));
  set(root, "namespace", json_string(manifest->namespace_));
  set(root, "admit", json_string(manifest->admit));
  set(root, "genesis", json_integer(manifest->genesis));
  set(root, "lineage", json_string(manifest->lineage));
  set(root, "entry", json_string(manifest->entry.id));
  set(root, "nonce", json_string(manifest->entry.nonce));
  set(root, "tenure", json_string(manifest->tenure));
  set(root, "sequence", json_integer(manifest->sequence));
  set(root, "ms", json_integer(manifest->ms));
  set(root, "partitions", partitions);
  set(root, "chunks", chunks);
  for (size_t i = 0; i < manifest->partition_count; i++) {
    const livenps_manifest_partition *each = &manifest->partitions[i];
    json_t *item = made(json_object());
    set(item, "topic", json_string(each->topic));
    set(item, "partition", json_integer(each->partition));
    char position[LIVENPS_POSITION_MAX];
    livenps_position_print(&each->position, position);
    set(item, "position", json_string(position));
    set(item, "start", json_integer(each->start));
    set(item, "gap", json_integer(each->gap));
    json_array_append_new(partitions, item);
  }
  for (size_t i = 0; i < manifest->chunk_count; i++) {
    const livenps_manifest_chunk *each = &manifest->chunks[i];
    json_t *item = made(json_object());
    set(item, "name", json_string(each->name));
    set(item, "id", json_string(each->id));
    set(item, "size", json_integer((json_int_t)each->size));
    set(item, "sha256", json_string(each->sha256));
    json_array_append_new(chunks, item);
  }
  json_dump_callback(root, collect, out, JSON_COMPACT);
  json_decref(root);
}

static const livenps_manifest_partition *find(const livenps_manifest *manifest, const char *topic,
                                              int32_t partition) {
  for (size_t i = 0; i < manifest->partition_count; i++)
    if (manifest->partitions[i].partition == partition && !strcmp(manifest->partitions[i].topic, topic))
      return &manifest->partitions[i];
  return NULL;
}

/* -- in ----------------------------------------------------------------------------------------------------------- */

/* After the first thing that does not fit, error is set and everything further reads as nothing. */
static const char *get_text(const json_t *object, const char *name, size_t least, size_t most,
                            livenps_error *error) {
  const json_t *value = json_object_get(object, name);
  const char *text = json_string_value(value);
  const size_t length = text ? json_string_length(value) : 0;
  if (!text || length < least || length > most || strlen(text) != length) {
    livenps_fail(error, LIVENPS_E_DATA, "manifest: %s is missing or not a text of %zu to %zu bytes", name,
                 least, most);
    return "";
  }
  return text;
}

static void get_fixed(const json_t *object, const char *name, size_t least, size_t size, char *out,
                      livenps_error *error) {
  snprintf(out, size, "%s", get_text(object, name, least, size - 1, error));
}

static int64_t get_number(const json_t *object, const char *name, int64_t least, livenps_error *error) {
  const json_t *value = json_object_get(object, name);
  if (!json_is_integer(value) || json_integer_value(value) < least) {
    livenps_fail(error, LIVENPS_E_DATA, "manifest: %s is missing or not a number from %" PRId64 " on", name,
                 least);
    return least;
  }
  return json_integer_value(value);
}

static const json_t *get_list(const json_t *object, const char *name, livenps_error *error) {
  const json_t *list = json_object_get(object, name);
  if (!json_is_array(list))
    livenps_fail(error, LIVENPS_E_DATA, "manifest: %s is missing or not a list", name);
  return list;
}

static bool hexadecimal(const char *text, size_t length) {
  return strlen(text) == length && strspn(text, "0123456789abcdef") == length;
}

static void get_partitions(livenps_manifest *manifest, const json_t *list, livenps_error *error) {
  manifest->partitions = livenps_alloc((json_array_size(list) + 1) * sizeof *manifest->partitions);
  for (size_t i = 0; i < json_array_size(list) && !error->code; i++) {
    const json_t *item = json_array_get(list, i);
    livenps_manifest_partition *each = &manifest->partitions[manifest->partition_count++];
    const char *topic = get_text(item, "topic", 1, 249, error);
    const int64_t partition = get_number(item, "partition", 0, error);
    *each = (livenps_manifest_partition){.topic = livenps_copy(topic, strlen(topic)),
                                         .partition = (int32_t)partition,
                                         .start = get_number(item, "start", 0, error),
                                         .gap = get_number(item, "gap", INT64_MIN, error)};
    const char *position = get_text(item, "position", 1, LIVENPS_POSITION_MAX - 1, error);
    if (livenps_position_parse(livenps_text_of(position), &each->position))
      livenps_fail(error, LIVENPS_E_DATA, "manifest: a position is not one that this program writes");
    if (partition > INT32_MAX)
      livenps_fail(error, LIVENPS_E_DATA, "manifest: there is no partition %" PRId64, partition);
    if (find(manifest, each->topic, each->partition) != each)
      livenps_fail(error, LIVENPS_E_DATA, "manifest: a partition is named twice");
  }
}

static void get_chunks(livenps_manifest *manifest, const json_t *list, livenps_error *error) {
  manifest->chunks = livenps_alloc((json_array_size(list) + 1) * sizeof *manifest->chunks);
  for (size_t i = 0; i < json_array_size(list) && !error->code; i++) {
    const json_t *item = json_array_get(list, i);
    livenps_manifest_chunk *each = &manifest->chunks[manifest->chunk_count++];
    const char *name = get_text(item, "name", 1, 127, error), *id = get_text(item, "id", 1, 300, error);
    const int64_t size = get_number(item, "size", 1, error);
    *each = (livenps_manifest_chunk){
        .name = livenps_copy(name, strlen(name)), .id = livenps_copy(id, strlen(id)), .size = (size_t)size};
    get_fixed(item, "sha256", 64, sizeof each->sha256, each->sha256, error);
    /* Redis holds no longer string, so no chunk of ours is. */
    if (size > INT64_C(512) * 1024 * 1024)
      livenps_fail(error, LIVENPS_E_DATA, "manifest: a chunk of %" PRId64 " bytes", size);
    for (size_t k = 0; k < i; k++)
      if (!strcmp(manifest->chunks[k].name, each->name))
        livenps_fail(error, LIVENPS_E_DATA, "manifest: a chunk is named twice");
  }
}

int livenps_manifest_decode(livenps_manifest *out, const char *bytes, size_t length, livenps_error *error) {
  livenps_manifest manifest = {0};
  livenps_error trouble = {0};
  json_error_t where;
  json_t *root = json_loadb(bytes ? bytes : "", length, JSON_REJECT_DUPLICATES, &where);
  if (!json_is_object(root)) {
    livenps_fail(&trouble, LIVENPS_E_DATA, "manifest: not a JSON object");
    goto done;
  }
  const int64_t format = get_number(root, "format", 0, &trouble);
  if (!trouble.code && format != LIVENPS_MANIFEST_FORMAT) {
    livenps_fail(&trouble, LIVENPS_E_DATA, "manifest: format %" PRId64 ", this program reads format %d",
                 format, LIVENPS_MANIFEST_FORMAT);
    goto done;
  }
  manifest.version = get_number(root, "version", 0, &trouble);
  manifest.genesis = get_number(root, "genesis", 0, &trouble);
  manifest.sequence = get_number(root, "sequence", 0, &trouble);
  manifest.ms = get_number(root, "ms", 0, &trouble);
  /* Redis's scripts count in doubles. */
  if (!trouble.code && manifest.genesis > INT64_C(1) << 50)
    livenps_fail(&trouble, LIVENPS_E_DATA, "manifest: there is no genesis %" PRId64, manifest.genesis);
  get_fixed(root, "namespace", 1, sizeof manifest.namespace_, manifest.namespace_, &trouble);
  get_fixed(root, "admit", 64, sizeof manifest.admit, manifest.admit, &trouble);
  get_fixed(root, "lineage", 32, sizeof manifest.lineage, manifest.lineage, &trouble);
  get_fixed(root, "tenure", 16, sizeof manifest.tenure, manifest.tenure, &trouble);
  get_fixed(root, "entry", 1, sizeof manifest.entry.id, manifest.entry.id, &trouble);
  get_fixed(root, "nonce", 1, sizeof manifest.entry.nonce, manifest.entry.nonce, &trouble);
  if (!trouble.code && !hexadecimal(manifest.tenure, 16))
    livenps_fail(&trouble, LIVENPS_E_DATA, "manifest: tenure is not hexadecimal");
  get_partitions(&manifest, get_list(root, "partitions", &trouble), &trouble);
  get_chunks(&manifest, get_list(root, "chunks", &trouble), &trouble);
done:
  json_decref(root);
  if (trouble.code) {
    livenps_manifest_free(&manifest);
    return livenps_fail(error, trouble.code, "%s", trouble.text);
  }
  *out = manifest;
  return 0;
}

/* -- the choice --------------------------------------------------------------------------------------------------- */

/* Numbers from a topic that anybody may have written to: sums stop where they would wrap. */
static int64_t add(int64_t sum, int64_t more) {
  if (more > 0)
    return sum > INT64_MAX - more ? INT64_MAX : sum + more;
  return sum < -INT64_MAX - more ? -INT64_MAX : sum + more;
}

/* In a later incarnation of its topic a partition is further, whatever its offset. */
static bool further(const livenps_position *a, const livenps_position *b) {
  return a->incarnation != b->incarnation ? a->incarnation > b->incarnation : a->next > b->next;
}

int livenps_manifest_compare(const livenps_manifest *a, const livenps_manifest *b) {
  int64_t incarnations[2] = {0}, offsets[2] = {0};
  for (int side = 0; side < 2; side++) {
    const livenps_manifest *each = side ? b : a;
    for (size_t i = 0; i < each->partition_count; i++) {
      incarnations[side] = add(incarnations[side], each->partitions[i].position.incarnation);
      offsets[side] = add(offsets[side], each->partitions[i].position.next);
    }
  }
  const int64_t keys[][2] = {{a->genesis, b->genesis},
                             {incarnations[0], incarnations[1]},
                             {offsets[0], offsets[1]},
                             {a->ms, b->ms},
                             {a->sequence, b->sequence}};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (keys[i][0] != keys[i][1])
      return keys[i][0] > keys[i][1] ? -1 : 1;
  return 0;
}

bool livenps_manifest_ahead(const livenps_manifest *a, const livenps_manifest *b) {
  for (size_t i = 0; i < a->partition_count; i++) {
    const livenps_manifest_partition *other = find(b, a->partitions[i].topic, a->partitions[i].partition);
    if (!other || further(&a->partitions[i].position, &other->position))
      return true;
  }
  return false;
}

bool livenps_manifest_matches(const livenps_manifest *manifest, const livenps_partition *ledger,
                              size_t count) {
  bool same = manifest->partition_count == count;
  for (size_t i = 0; i < count && same; i++) {
    const livenps_manifest_partition *its = find(manifest, ledger[i].topic, ledger[i].partition);
    same = its && its->position.next == ledger[i].position.next &&
           its->position.incarnation == ledger[i].position.incarnation && its->start == ledger[i].start &&
           its->gap == ledger[i].gap;
  }
  return same;
}

/* -- which one to begin with -------------------------------------------------------------------------------------- */

/* What the topics say of a partition now; NULL: nothing. *followed: its topic is one of them. */
static const livenps_beginning *beginning_of(const livenps_manifest_partition *partition,
                                             const livenps_beginning *now, size_t count, bool *followed) {
  *followed = false;
  for (size_t i = 0; i < count; i++)
    if (!strcmp(now[i].topic, partition->topic)) {
      *followed = true;
      if (now[i].partition == partition->partition)
        return &now[i];
    }
  return NULL;
}

bool livenps_manifest_reaches(const livenps_manifest *manifest, const livenps_beginning *now, size_t count,
                              char why[256]) {
  for (size_t i = 0; i < manifest->partition_count; i++) {
    const livenps_manifest_partition *each = &manifest->partitions[i];
    bool followed;
    const livenps_beginning *found = beginning_of(each, now, count, &followed);
    if (!followed || (found && each->position.next <= found->end))
      continue;
    char topic[250];
    livenps_printable(topic, sizeof topic, each->topic, strlen(each->topic));
    if (!found)
      snprintf(why, 256, "%.180s has no partition %" PRId32, topic, each->partition);
    else
      snprintf(why, 256,
               "%.150s/%" PRId32 " is counted up to %" PRId64 ", and the topic ends at %" PRId64 " now",
               topic, each->partition, each->position.next, found->end);
    return false;
  }
  return true;
}

/* Of this partition, because retention was faster. */
static int64_t passed(const livenps_manifest_partition *partition, const livenps_beginning *found) {
  return found && found->first > partition->position.next ? found->first - partition->position.next : 0;
}

int64_t livenps_manifest_overtaken(const livenps_manifest *manifest, const livenps_beginning *now,
                                   size_t count, char why[256]) {
  int64_t sum = 0;
  for (size_t i = 0; i < manifest->partition_count; i++) {
    const livenps_manifest_partition *each = &manifest->partitions[i];
    bool followed;
    const livenps_beginning *found = beginning_of(each, now, count, &followed);
    if (!passed(each, found))
      continue;
    char topic[250];
    livenps_printable(topic, sizeof topic, each->topic, strlen(each->topic));
    snprintf(why, 256,
             "%.150s/%" PRId32 " is counted up to %" PRId64 ", and the topic begins at %" PRId64 " now",
             topic, each->partition, each->position.next, found->first);
    sum = add(sum, passed(each, found));
  }
  return sum;
}

/* Records that whoever goes on from here will never count, but for a number that is the same for all: of each partition that is read,
 * those before its start, those lost since, and those that are gone behind its position; less what was counted of partitions that are no
 * longer read. Where a topic was made anew, the gap is less by what was counted of the old one: incarnations compare as well. */
static int64_t lost(const livenps_manifest *manifest, const livenps_beginning *now, size_t count) {
  int64_t sum = 0;
  for (size_t i = 0; i < manifest->partition_count; i++) {
    const livenps_manifest_partition *each = &manifest->partitions[i];
    bool followed;
    const livenps_beginning *found = beginning_of(each, now, count, &followed);
    sum = add(add(sum, each->start), each->gap);
    sum = add(sum, found ? passed(each, found) : -each->position.next);
  }
  for (size_t i = 0; i < count; i++)
    if (!find(manifest, now[i].topic, now[i].partition))
      sum = add(sum, now[i].start);
  return sum;
}

bool livenps_manifest_better(const livenps_manifest *manifest, const livenps_manifest *mine,
                             const livenps_beginning *now, size_t count) {
  if (manifest->genesis < mine->genesis)
    return false;
  int64_t theirs = 0, ours = 0;
  for (size_t i = 0; i < mine->partition_count; i++) {
    const livenps_manifest_partition *each = &mine->partitions[i];
    const livenps_manifest_partition *its = find(manifest, each->topic, each->partition);
    /* It counts a topic that was deleted since, and could not be read on. */
    if (its && its->position.incarnation < each->position.incarnation)
      return false;
    ours = add(add(ours, each->start), each->gap);
    theirs = its ? add(add(theirs, its->start), its->gap) : theirs;
  }
  return now ? lost(manifest, now, count) < lost(mine, now, count) : theirs < ours;
}

typedef struct {
  const livenps_manifest *manifest;
  int64_t lost;
  size_t place;
} candidate;

static int best_first(const void *a, const void *b) {
  const candidate *x = a, *y = b;
  if (x->manifest->genesis != y->manifest->genesis)
    return x->manifest->genesis > y->manifest->genesis ? -1 : 1;
  if (x->lost != y->lost)
    return x->lost < y->lost ? -1 : 1;
  const int order = livenps_manifest_compare(x->manifest, y->manifest);
  return order ? order : (x->place < y->place) - (x->place > y->place);
}

size_t livenps_manifest_choose(const livenps_manifest *const *all, size_t count, const livenps_manifest *mine,
                               const livenps_beginning *now, size_t now_count, size_t *order) {
  candidate *list = livenps_alloc((count + 1) * sizeof *list);
  char why[256];
  size_t found = 0;
  /* A position beyond the end is one of another topic, or of an end that was lost: what is still to be read from there is not known. */
  if (mine && !livenps_manifest_reaches(mine, now, now_count, why))
    count = 0;
  for (size_t i = 0; i < count; i++)
    if (livenps_manifest_reaches(all[i], now, now_count, why) &&
        (!mine || livenps_manifest_better(all[i], mine, now, now_count)))
      list[found++] = (candidate){all[i], lost(all[i], now, now_count), i};
  qsort(list, found, sizeof *list, best_first);
  for (size_t i = 0; i < found; i++)
    order[i] = list[i].place;
  free(list);
  return found;
}
