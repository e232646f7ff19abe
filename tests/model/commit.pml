/* The commit protocol of livenps (docs/architecture.md, consumer/scripts.c, commit.c, aggregate.c, publish.c), checked exhaustively.
 *
 * One step of this model is what is one step in Redis: a script runs as a whole or not at all. Between two steps anything else may
 * happen, for any time. A process that crashes is one that makes no further step, a zombie one that makes its next step late; both are
 * therefore everywhere, and so is the lost reply: whoever lost it adopts what is stored (rule 2), which a writer may do at any time.
 *
 * Ids are as bad as they can be: an entry's id is its predecessor's plus one, a genesis starts at 0 again, so every id comes back after a
 * failover. What is random in the program (nonce, lineage, publish id) is only ever compared, so it is renamed after each step in the
 * order in which it is met; two states that differ in such names only are one. Writers that differ in their number only likewise.
 *
 * What is checked, as assertions:
 *   i1_counts_match_positions  snapshot and log, folded as the aggregator folds them, count each record below the stored positions once
 *                              and no other, the chain of predecessors and offsets without a break (I1)
 *   i3_commit_left_positions   after a commit that Redis accepted the positions are those the writer believes in, idle partitions too
 *   i4_published_is_in_the_log what is published is the fold of the log that Redis holds, up to the entry that the script named (I4)
 *   i4_views_match_state       when a tick has written health, every view shows the state that health speaks of
 *   restorable                 whoever looks at a namespace that is there finds the entry that the snapshot covers
 *   genesis_offsets_exist      genesis installs no offset that retention had removed before its lease was taken, but those of a snapshot
 *   genesis_loses_least        genesis gives up no record that Kafka's snapshot counts and the topic has lost
 *   drained                    from every state, once faults stop: each partition read to its end, each record counted once and shown
 *
 * A variant takes one rule away (-D NAME, the list is in tests/model/run) and must be caught. */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef AGGREGATORS
#define AGGREGATORS 1
#endif
#ifndef FAILOVERS
#define FAILOVERS 0 /* how often a replica that is behind is promoted */
#endif
#ifndef FLUSHES
#define FLUSHES 0
#endif
#ifndef RENEWALS
#define RENEWALS 0 /* how often an aggregator begins a namespace anew that is there: a snapshot that cannot be read, a better one in Kafka */
#endif
#ifndef RETENTIONS
#define RETENTIONS 0 /* how often the oldest record of partition 0 is removed */
#endif
#ifndef ENTRIES
#define ENTRIES 4 /* room in the log */
#endif
#ifndef IDS
#define IDS ENTRIES /* entries of one lineage, genesis included */
#endif
#ifndef END0
#define END0 2 /* records in partition 0, at most 2 */
#endif
#ifndef END1
#define END1 1
#endif
/* Further switches: SNAPSHOTS, VIEWS (two scripts a tick), LATE (scripts that arrive after their sender gave up), KAFKA (the snapshot
 * topic), DRAIN. */

/* ---- positions and records ------------------------------------------------------------------------------------------- */

/* Two partitions. Positions: two bits each. A set of records: two bits each, offset 0 and 1. */
#define at(v, p) (((v) >> (2 * (p))) & 3)
#define below(v) (((1 << at(v, 0)) - 1) | (((1 << at(v, 1)) - 1) << 2))
#define lanes(m) (((m) & 1) * 3 + (((m) >> 1) & 1) * 12)
#define THE_END (END0 | (END1 << 2))

typedef ENTRY {
  unsigned nonce : 4; /* 0: there is no entry */
  unsigned before : 4; /* the nonce it names; the id it names is its own less one */
  unsigned mask : 2; /* the writer's partitions */
  unsigned from : 4;
  unsigned to : 4;
  unsigned delta : 4; /* the records it counts */
  unsigned told : 4; /* the records it tells as a gap */
}

typedef REDIS {
  unsigned present : 1;
  unsigned lineage : 3;
  unsigned genesis : 3;
  unsigned positions : 4;
  unsigned publish : 3; /* 0: the empty id that genesis leaves */
  unsigned lease : 2; /* 0: none, or expired */
  unsigned last : 2; /* lease:last */
  unsigned first : 4; /* id of log[0] */
  unsigned count : 3;
  unsigned id : 4; /* the entry that the snapshot covers */
  unsigned nonce : 4;
  unsigned next : 4; /* the state in the snapshot: positions, */
  unsigned counts : 4; /* records counted, */
  unsigned told : 4; /* records told as lost */
  unsigned view : 4; /* what the views show */
  ENTRY log[ENTRIES];
#ifdef GENERATION
  unsigned epoch : 2;
#endif
}
REDIS r, replica;
bit behind; /* the replica stands still and may be promoted */
unsigned failovers : 2 = FAILOVERS;
unsigned flushes : 2 = FLUSHES;
unsigned retentions : 2 = RETENTIONS;
unsigned renewals : 2 = RENEWALS;
unsigned start : 4; /* first offsets that the topic still has */

typedef WRITER {
  unsigned mask : 2; /* partitions it believes to own; any subset at any time: no group keeps two from owning one */
  unsigned lineage : 3;
  unsigned stored : 4;
#ifdef GENERATION
  unsigned generation : 2;
#endif
#ifdef KAFKA_OFFSETS
  unsigned base : 4;
#endif
#ifdef TWO_COMMANDS
  unsigned half : 1;
  unsigned to : 4;
#endif
}
WRITER w[WRITERS];

/* What an aggregator is about. */
#define IDLE 0
#define FOLLOWS 1 /* has a state */
#define HALFWAY 2 /* has written views, health comes next */
#define ABSENT 3 /* looked, found nothing that can be loaded; lineage is the one it saw */
#define ASKED 4 /* knows where to begin; next, counts and told are what it will install */

typedef AGGREGATOR {
  unsigned phase : 3;
  unsigned reached : 1; /* the head, since the state was loaded */
  unsigned lineage : 3;
  unsigned id : 4; /* folded last */
  unsigned nonce : 4;
  unsigned next : 4;
  unsigned counts : 4;
  unsigned told : 4;
  unsigned publish : 3;
  unsigned everything : 1;
  unsigned shown : 4; /* what it believes the views to show */
  unsigned genesis : 3;
}
/* The last is no process: it is a request on its way, with all that its sender knew. */
#define ON_ITS_WAY AGGREGATORS
AGGREGATOR a[AGGREGATORS + 1];
unsigned token : 2; /* of the request on its way; 0: none */
unsigned request : 3;
#define VIEWS_REQUEST 1
#define HEALTH_REQUEST 2
#define FLIP_REQUEST 3
#define GENESIS_REQUEST 4

#ifdef KAFKA
typedef MANIFEST {
  unsigned there : 1;
  unsigned genesis : 3;
  unsigned next : 4;
  unsigned counts : 4;
  unsigned told : 4;
}
/* best: the furthest generation that was ever complete in the topic; older ones are tombstoned, never a further one. sending: on
 * its way, however late. */
MANIFEST best, sending;
#endif
#ifdef GENERATION
unsigned group : 2;
unsigned owner : 2; /* partitions of writer 0 in this generation; the others are writer 1's */
#endif
#ifdef KAFKA_OFFSETS
unsigned committed : 4;
#endif
#ifdef DRAIN
bit over;
#endif

/* A fresh name, until tidy() gives it its place. */
#define NEW_NONCE 15
#define NEW_NAME 7

/* Scratch of single steps, no part of a state. */
hidden byte i, j, k, m, n, x, z, next, counts, told, nonce, id;
hidden byte fine, gone;
hidden byte map[16];

/* ---- names ------------------------------------------------------------------------------------------------------------ */

inline rename(v) {
  if
  :: v && !map[v] -> n++; map[v] = n
  :: else
  fi;
  v = map[v]
}
inline rename_begin() {
  n = 0;
  i = 0;
  do
  :: i < 16 -> map[i] = 0; i++
  :: else -> break
  od
}

inline order_writers(one, two) {
  if
  :: (w[one].mask | (w[one].lineage << 2) | (w[one].stored << 5)) < (w[two].mask | (w[two].lineage << 2) | (w[two].stored << 5)) ->
    x = w[one].mask; w[one].mask = w[two].mask; w[two].mask = x;
    x = w[one].lineage; w[one].lineage = w[two].lineage; w[two].lineage = x;
    x = w[one].stored; w[one].stored = w[two].stored; w[two].stored = x
  :: else
  fi
}

inline tidy() {
  rename_begin();
  j = 0;
  do
  :: j < r.count -> rename(r.log[j].before); rename(r.log[j].nonce); j++
  :: else -> break
  od;
  rename(r.nonce);
#if FAILOVERS
  j = 0;
  do
  :: j < replica.count -> rename(replica.log[j].before); rename(replica.log[j].nonce); j++
  :: else -> break
  od;
  rename(replica.nonce);
#endif
  j = 0;
  do
  :: j <= AGGREGATORS -> rename(a[j].nonce); j++
  :: else -> break
  od;
  rename_begin();
  rename(r.lineage);
  rename(replica.lineage);
  j = 0;
  do
  :: j <= AGGREGATORS -> rename(a[j].lineage); j++
  :: else -> break
  od;
  j = 0;
  do
  :: j < WRITERS -> rename(w[j].lineage); j++
  :: else -> break
  od;
  rename_begin();
  rename(r.publish);
  rename(replica.publish);
  j = 0;
  do
  :: j <= AGGREGATORS -> rename(a[j].publish); j++
  :: else -> break
  od;
#if !defined(GENERATION) && !defined(KAFKA_OFFSETS) && !defined(TWO_COMMANDS)
#if WRITERS > 1
  order_writers(0, 1);
#endif
#if WRITERS > 2
  order_writers(1, 2);
  order_writers(0, 1);
#endif
#endif
  n = 0 /* a d_step must not end in a loop */
}

/* ---- the log ---------------------------------------------------------------------------------------------------------- */

#ifdef ID_ALONE
#define same(one, two) true
#else
#define same(one, two) ((one) == (two))
#endif
/* Whether the log holds this entry. */
#define holds(id_, nonce_) \
  (r.count && (id_) >= r.first && (id_) < r.first + r.count && same(r.log[(id_) - r.first].nonce, nonce_))
#define head_id (r.first + r.count - 1)
#define head_nonce (r.log[r.count - 1].nonce)

/* Folds log[j] into next, counts, told; fine becomes false where the ledger finds that it does not continue them. */
inline fold_one() {
  if
  :: ((r.log[j].from ^ next) & lanes(r.log[j].mask)) -> fine = false
  :: else ->
    next = (next & ~lanes(r.log[j].mask)) | (r.log[j].to & lanes(r.log[j].mask));
    if
    :: counts & r.log[j].delta -> fine = false /* counted twice */
    :: else
    fi;
    counts = counts | r.log[j].delta;
    told = told | r.log[j].told
  fi
}

/* Folds snapshot and log up to entry id_ into next, counts, told. */
inline fold_stored(id_) {
  next = r.next;
  counts = r.counts;
  told = r.told;
  nonce = r.nonce;
  fine = true;
  j = 0;
  do
  :: j < r.count ->
    if
    :: r.first + j > r.id && r.first + j <= (id_) ->
      if
      :: r.log[j].before != nonce -> fine = false
      :: else
      fi;
      nonce = r.log[j].nonce;
      fold_one()
    :: else
    fi;
    j++
  :: else -> break
  od
}

hidden byte i1_counts_match_positions, i3_commit_left_positions, i4_published_is_in_the_log, i4_views_match_state, restorable,
    genesis_offsets_exist, genesis_loses_least, drained;

#ifdef TWO_COMMANDS
#define half_done(c) w[c].half
#define in_between (w[0].half || w[WRITERS - 1].half)
#else
#define half_done(c) false
#define in_between false
#endif

inline check_truth() {
  if
  :: r.present && !in_between ->
    fold_stored(head_id);
    i1_counts_match_positions =
        fine && next == r.positions && !(counts & told) && (counts | told) == below(r.positions);
    assert(i1_counts_match_positions)
  :: else
  fi
}

/* ---- writers ---------------------------------------------------------------------------------------------------------- */

inline adopt_script(c, mask_) {
#ifdef GENERATION
  if
  :: group < r.epoch -> fine = false
  :: else -> r.epoch = group; fine = true
  fi;
  w[c].generation = group;
#endif
  w[c].mask = mask_;
  w[c].lineage = r.lineage;
  w[c].stored = r.positions & lanes(mask_);
#ifdef KAFKA_OFFSETS
  w[c].base = committed & lanes(mask_);
#endif
}

inline unadopt(c) {
  w[c].mask = 0;
  w[c].lineage = 0;
  w[c].stored = 0;
#ifdef GENERATION
  w[c].generation = 0;
#endif
#ifdef KAFKA_OFFSETS
  w[c].base = 0;
#endif
#ifdef TWO_COMMANDS
  w[c].half = 0;
  w[c].to = 0;
#endif
}

#if defined(NO_CAS)
#define cas(c, to_) true
#elif defined(GENERATION)
#define cas(c, to_) (w[c].generation >= r.epoch)
#elif defined(CAS_ON_ADVANCED)
#define cas(c, to_)                                                                                        \
  ((at(to_, 0) == at(w[c].stored, 0) || !(w[c].mask & 1) || at(w[c].stored, 0) == at(r.positions, 0)) && \
   (at(to_, 1) == at(w[c].stored, 1) || !(w[c].mask & 2) || at(w[c].stored, 1) == at(r.positions, 1)))
#else
#define cas(c, to_) (((r.positions ^ w[c].stored) & lanes(w[c].mask)) == 0)
#endif

#ifdef KAFKA_OFFSETS
#define begun(c) w[c].base
#else
#define begun(c) w[c].stored
#endif

inline append(c, to_, lost_) {
  r.log[r.count].nonce = NEW_NONCE;
  if
  :: r.count -> r.log[r.count].before = head_nonce
  :: else
  fi;
  r.log[r.count].mask = w[c].mask;
  r.log[r.count].from = w[c].stored;
  r.log[r.count].to = to_;
  /* Records that retention removed unread are told as a gap. */
  told = lost_ & below(start) & below(to_) & ~below(begun(c)) & lanes(w[c].mask);
  r.log[r.count].told = told;
  r.log[r.count].delta = below(to_) & ~below(begun(c)) & ~told;
  r.count++
}

/* The commit script. lost_: records that retention may have removed before they were read. to_: how far the writer has read, at least what it adopted. What it holds of Kafka's records is decided by the two
 * offsets, so reading is no step of its own. */
inline commit_script(c, to_, lost_) {
  if
  :: !r.present ->
#ifdef COMMIT_CREATES
    r.present = 1;
    r.lineage = NEW_NAME;
    r.genesis = 1;
    r.first = 0;
    r.count = 0;
    append(c, to_, lost_);
    r.positions = to_;
    w[c].lineage = NEW_NAME;
    w[c].stored = to_;
    check_truth()
#else
    unadopt(c) /* EMPTY */
#endif
  :: else ->
    if
    :: r.lineage != w[c].lineage || !cas(c, to_) -> unadopt(c) /* LINEAGE, CONFLICT */
    :: else ->
      /* Only what advanced is written. */
      x = lanes((at(to_, 0) != at(w[c].stored, 0)) | ((at(to_, 1) != at(w[c].stored, 1)) << 1));
      r.positions = (r.positions & ~x) | (to_ & x);
#ifdef GENERATION
      r.epoch = w[c].generation;
#endif
#ifdef TWO_COMMANDS
      w[c].half = 1;
      w[c].to = to_
#else
      append(c, to_, lost_);
      i3_commit_left_positions = ((r.positions ^ to_) & lanes(w[c].mask)) == 0;
      w[c].stored = to_;
#ifdef KAFKA_OFFSETS
      w[c].base = to_;
#endif
      check_truth();
      assert(i3_commit_left_positions)
#endif
    fi
  fi
}

/* Positions and deltas in two commands: this is the second one. */
#ifdef TWO_COMMANDS
inline commit_second(c) {
  if
  :: r.present && r.lineage == w[c].lineage && r.count < ENTRIES ->
    append(c, w[c].to, 0);
    w[c].stored = w[c].to;
    w[c].half = 0;
    w[c].to = 0
  :: else -> unadopt(c)
  fi;
  check_truth()
}
#endif

/* ---- aggregators ------------------------------------------------------------------------------------------------------ */

inline forget(b) {
  a[b].phase = IDLE;
  a[b].reached = 0;
  a[b].lineage = 0;
  a[b].id = 0;
  a[b].nonce = 0;
  a[b].next = 0;
  a[b].counts = 0;
  a[b].told = 0;
  a[b].publish = 0;
  a[b].everything = 0;
  a[b].shown = 0;
  a[b].genesis = 0
}

/* What every script of the aggregator asks first. A lease that lapsed while nobody took it is still its last holder's. */
#define fenced(token_) (r.lease == (token_) || (r.lease == 0 && r.last == (token_)))

/* The lease script and what its caller does: OTHER: stand by; TAKEN: whatever was remembered is worth nothing. */
inline lease_script(b, token_) {
  if
  :: r.lease && r.lease != token_ -> forget(b); gone = true
  :: else ->
    gone = r.last != token_;
    r.lease = token_;
    r.last = token_;
    if
    :: gone -> forget(b)
    :: else
    fi
  fi
}

/* look, then the chunks of what the pointer lists. Nothing is fenced here; what follows is. */
inline look_script(b) {
  forget(b);
  if
  :: !r.present ->
    a[b].phase = ABSENT;
    a[b].lineage = r.lineage
  :: else ->
    restorable = holds(r.id, r.nonce);
    assert(restorable);
    a[b].phase = FOLLOWS;
    a[b].lineage = r.lineage;
    a[b].id = r.id;
    a[b].nonce = r.nonce;
    a[b].next = r.next;
    a[b].counts = r.counts;
    a[b].told = r.told;
    a[b].publish = r.publish;
    a[b].everything = 1
  fi
}

/* Asks Kafka where to begin: the furthest snapshot, also where retention has overtaken it, which is a gap then; else the topic's start. */
inline ask(b, token_) {
  x = a[b].lineage;
  lease_script(b, token_);
  if
#ifdef TAKEN_IGNORED
  :: r.lease != token_
#else
  :: gone
#endif
  :: else ->
    a[b].phase = ASKED;
    a[b].lineage = x;
#ifdef KAFKA
    if
#ifdef OVERTAKEN_UNUSED
    :: best.there && at(best.next, 0) >= at(start, 0) && at(best.next, 1) >= at(start, 1) ->
#else
    :: best.there ->
#endif
      a[b].next = best.next;
      a[b].counts = best.counts;
      a[b].told = best.told
    :: else ->
      a[b].next = start;
      a[b].told = below(start)
    fi;
    a[b].genesis = best.genesis;
    genesis_loses_least = !(best.counts & below(start) & ~a[b].counts);
    assert(genesis_loses_least)
#else
    a[b].next = start;
    a[b].told = below(start)
#endif
  fi
}

#ifdef GENESIS_BY_ABSENCE
#define may_begin(b, token_) (!r.present)
#else
#define may_begin(b, token_) (fenced(token_) && r.lineage == a[b].lineage)
#endif

inline genesis_script(b, token_) {
  if
  :: !may_begin(b, token_) -> forget(b)
  :: else ->
#ifdef KAFKA
#define from_a_snapshot best.there
#else
#define from_a_snapshot false
#endif
    genesis_offsets_exist = from_a_snapshot || (at(a[b].next, 0) >= at(start, 0) && at(a[b].next, 1) >= at(start, 1));
    r.lease = token_;
    r.present = 1;
    r.lineage = NEW_NAME;
#ifdef KAFKA
    r.genesis = (r.genesis > a[b].genesis -> r.genesis : a[b].genesis) + 1;
#endif
    r.positions = a[b].next;
    r.publish = 0;
    r.first = 0;
    r.count = 1;
    j = 0;
    do
    :: j < ENTRIES ->
      r.log[j].nonce = 0;
      r.log[j].before = 0;
      r.log[j].mask = 0;
      r.log[j].from = 0;
      r.log[j].to = 0;
      r.log[j].delta = 0;
      r.log[j].told = 0;
      j++
    :: else -> break
    od;
    r.log[0].nonce = NEW_NONCE;
    r.id = 0;
    r.nonce = NEW_NONCE;
    r.next = a[b].next;
    r.counts = a[b].counts;
    r.told = a[b].told;
    a[b].phase = FOLLOWS;
    a[b].genesis = 0;
    a[b].lineage = NEW_NAME;
    a[b].id = 0;
    a[b].nonce = NEW_NONCE;
    a[b].publish = 0;
    a[b].everything = 1;
    check_truth();
    assert(genesis_offsets_exist)
  fi
}

/* The lease again after Kafka answered, then the script. */
inline begin(b, token_) {
#ifndef GENESIS_BY_ABSENCE
#ifdef TAKEN_IGNORED
  if
  :: r.lease && r.lease != token_ -> forget(b)
  :: else ->
    r.lease = token_;
    r.last = token_
  fi;
#else
  lease_script(b, token_);
#endif
#endif
  if
  :: a[b].phase == ASKED -> genesis_script(b, token_)
  :: else
  fi
}

#ifdef FOLD_UNCHECKED
#define names_the_last(j_) true
#else
#define names_the_last(j_) (same(r.log[j_].before, nonce) && r.first + (j_) == id + 1)
#endif

/* The read script, and folding what it gave: all, or, when one_ is set, one entry, because a reply is bounded. */
inline read_script(b, token_, one_) {
  if
  :: !fenced(token_) || !r.present || r.lineage != a[b].lineage -> forget(b)
  :: else ->
    r.lease = token_;
    id = a[b].id;
    nonce = a[b].nonce;
    next = a[b].next;
    counts = a[b].counts;
    told = a[b].told;
    fine = true;
    n = 0;
    j = 0;
    do
    :: j < r.count ->
      if
      :: r.first + j > a[b].id && fine && !(one_ && n) ->
        if
        :: names_the_last(j) -> fold_one()
        :: else -> fine = false
        fi;
        id = r.first + j;
        nonce = r.log[j].nonce;
        n++
      :: else
      fi;
      j++
    :: else -> break
    od;
    if
    :: !fine || (!n && !(id == head_id && same(nonce, head_nonce))) -> forget(b) /* not the log that was folded */
    :: else ->
      a[b].id = id;
      a[b].nonce = nonce;
      a[b].next = next;
      a[b].counts = counts;
      a[b].told = told;
      if
      :: id == head_id -> a[b].reached = 1
      :: else
      fi
    fi
  fi
}

/* A publish script's checks: gone when it refuses, and then what its caller does. */
inline publish_fence(b, token_) {
  gone = true;
  if
#ifndef PUBLISH_UNFENCED
  :: !fenced(token_) -> forget(b)
#endif
  :: else ->
    if
    :: r.lineage != a[b].lineage || !holds(a[b].id, a[b].nonce) -> forget(b)
    :: else ->
      if
#if !defined(PUBLISH_UNFENCED) && !defined(PUBLISH_UNCHECKED)
      :: r.publish != a[b].publish -> /* REPUBLISH */
        a[b].publish = r.publish;
        a[b].everything = 1;
        a[b].phase = FOLLOWS
#endif
      :: else ->
        gone = false;
#ifndef PUBLISH_UNFENCED
        r.lease = token_;
#endif
        fold_stored(a[b].id);
        i4_published_is_in_the_log = fine && next == a[b].next && counts == a[b].counts && told == a[b].told;
        assert(i4_published_is_in_the_log);
#ifndef PUBLISH_UNFENCED
        r.publish = NEW_NAME;
        a[b].publish = NEW_NAME
#endif
      fi
    fi
  fi
}

/* Only series that changed are written, here one for each partition. */
inline write_views(b) {
  x = (a[b].everything -> 15 : lanes((at(a[b].shown, 0) != at(a[b].counts, 0)) | ((at(a[b].shown, 1) != at(a[b].counts, 1)) << 1)));
  r.view = (r.view & ~x) | (a[b].counts & x);
  a[b].shown = a[b].counts
}

inline write_health(b) {
  i4_views_match_state = r.view == a[b].counts;
  assert(i4_views_match_state);
  a[b].everything = 0;
  a[b].phase = FOLLOWS
}

inline publish_script(b, token_, request_) {
  publish_fence(b, token_);
  if
  :: !gone && request_ == VIEWS_REQUEST -> write_views(b); a[b].phase = HALFWAY
  :: !gone && request_ == HEALTH_REQUEST -> write_health(b)
  :: !gone && request_ == 0 -> write_views(b); write_health(b)
  :: else
  fi
}

/* The snapshot's flip, with its trim. */
inline flip_script(b, token_) {
  if
#ifndef SNAPSHOT_UNFENCED
  :: !fenced(token_) || r.lineage != a[b].lineage -> forget(b)
#endif
#if !defined(SNAPSHOT_UNFENCED) && !defined(SNAPSHOT_BACKWARDS)
  :: !holds(a[b].id, a[b].nonce) -> forget(b)
#endif
#ifndef SNAPSHOT_BACKWARDS
  :: r.id > a[b].id -> forget(b)
#endif
  :: else ->
    r.lease = token_;
    r.id = a[b].id;
    r.nonce = a[b].nonce;
    r.next = a[b].next;
    r.counts = a[b].counts;
    r.told = a[b].told;
    /* XTRIM MINID */
    x = (a[b].id > r.first -> a[b].id - r.first : 0);
    x = (x > r.count -> r.count : x);
    j = 0;
    do
    :: x && j < ENTRIES ->
      if
      :: j + x < r.count ->
        r.log[j].nonce = r.log[j + x].nonce;
        r.log[j].before = r.log[j + x].before;
        r.log[j].mask = r.log[j + x].mask;
        r.log[j].from = r.log[j + x].from;
        r.log[j].to = r.log[j + x].to;
        r.log[j].delta = r.log[j + x].delta;
        r.log[j].told = r.log[j + x].told
      :: else ->
        r.log[j].nonce = 0;
        r.log[j].before = 0;
        r.log[j].mask = 0;
        r.log[j].from = 0;
        r.log[j].to = 0;
        r.log[j].delta = 0;
        r.log[j].told = 0
      fi;
      j++
    :: else -> break
    od;
    r.first = r.first + x;
    r.count = r.count - x;
#ifdef KAFKA
    if
    :: !sending.there ->
      sending.there = 1;
      sending.genesis = r.genesis;
      sending.next = r.next;
      sending.counts = r.counts;
      sending.told = r.told
    :: else
    fi;
#endif
    check_truth()
  fi
}

/* ---- faults ----------------------------------------------------------------------------------------------------------- */

inline copy(to_, from_) {
  to_.present = from_.present;
  to_.lineage = from_.lineage;
  to_.genesis = from_.genesis;
  to_.positions = from_.positions;
  to_.publish = from_.publish;
  to_.lease = from_.lease;
  to_.last = from_.last;
  to_.first = from_.first;
  to_.count = from_.count;
  to_.id = from_.id;
  to_.nonce = from_.nonce;
  to_.next = from_.next;
  to_.counts = from_.counts;
  to_.told = from_.told;
  to_.view = from_.view;
#ifdef GENERATION
  to_.epoch = from_.epoch;
#endif
  j = 0;
  do
  :: j < ENTRIES ->
    to_.log[j].nonce = from_.log[j].nonce;
    to_.log[j].before = from_.log[j].before;
    to_.log[j].mask = from_.log[j].mask;
    to_.log[j].from = from_.log[j].from;
    to_.log[j].to = from_.log[j].to;
    to_.log[j].delta = from_.log[j].delta;
    to_.log[j].told = from_.log[j].told;
    j++
  :: else -> break
  od
}

inline wipe(what) {
  what.present = 0;
  what.lineage = 0;
  what.genesis = 0;
  what.positions = 0;
  what.publish = 0;
  what.lease = 0;
  what.last = 0;
  what.first = 0;
  what.count = 0;
  what.id = 0;
  what.nonce = 0;
  what.next = 0;
  what.counts = 0;
  what.told = 0;
  what.view = 0;
#ifdef GENERATION
  what.epoch = 0;
#endif
  j = 0;
  do
  :: j < ENTRIES ->
    what.log[j].nonce = 0;
    what.log[j].before = 0;
    what.log[j].mask = 0;
    what.log[j].from = 0;
    what.log[j].to = 0;
    what.log[j].delta = 0;
    what.log[j].told = 0;
    j++
  :: else -> break
  od
}

/* ---- what must be true once faults stop -------------------------------------------------------------------------------- */

/* A tick of aggregator b, with whatever it still has to do. */
inline tick(b) {
  if
  :: a[b].phase == IDLE -> lease_script(b, b + 1); look_script(b)
  :: a[b].phase == ABSENT -> ask(b, b + 1)
  :: a[b].phase == ASKED -> begin(b, b + 1)
  :: else ->
    x = a[b].phase;
    if
    :: x == FOLLOWS -> read_script(b, b + 1, 0)
    :: else
    fi;
    if
    :: a[b].phase != IDLE && a[b].reached ->
      publish_script(b, b + 1, (x == HALFWAY -> HEALTH_REQUEST : 0));
      if
      :: a[b].phase == FOLLOWS -> flip_script(b, b + 1)
      :: else
      fi
    :: else
    fi
  fi
}

#ifdef DRAIN
#ifdef NO_IDLE
#define has_to_commit(c) (w[c].stored != (THE_END & lanes(w[c].mask)))
#else
#define has_to_commit(c) true
#endif
hidden byte want[WRITERS], turn;

/* Everybody but aggregator b is gone, its leases expire; Redis, Kafka and the writers stay. The group comes to rest: of two that believe
 * to own a partition one does, one that nobody owns goes to writer 0, and whoever gets other partitions than it had adopts. All others go
 * on from what they have in hand: three turns for each writer, with a tick between, and some at both ends. */
inline drain(b) {
  r.lease = (r.lease == b + 1 -> b + 1 : 0);
  m = 0;
  k = 0;
  do
  :: k < WRITERS ->
    want[k] = w[k].mask & ~m;
    m = m | w[k].mask;
    if
    :: want[k] != w[k].mask -> unadopt(k)
    :: else
    fi;
    k++
  :: else -> break
  od;
  if
  :: m != 3 -> want[0] = want[0] | (3 & ~m); unadopt(0)
  :: else
  fi;
  turn = 0;
  do
  :: turn < 12 + 6 * WRITERS ->
    printf("  turn %d: positions %d %d, log %d from %d; aggregator phase %d at %d %d entry %d; views %d\n", turn, at(r.positions, 0), at(r.positions, 1), r.count, r.first, a[b].phase, at(a[b].next, 0), at(a[b].next, 1), a[b].id, r.view);
    if
    :: turn < 8 || (turn & 1) || turn >= 8 + 6 * WRITERS -> tick(b)
    :: else ->
      k = ((turn - 8) / 2) % WRITERS;
      if
      :: want[k] && !w[k].mask && r.present -> adopt_script(k, want[k])
      :: want[k] && w[k].mask && has_to_commit(k) -> commit_script(k, (THE_END & lanes(want[k])), 15)
      :: else
      fi
    fi;
    turn++
  :: else -> break
  od;
  drained = r.positions == THE_END && a[b].next == THE_END && (a[b].counts | a[b].told) == below(THE_END) &&
            !(a[b].counts & a[b].told) && r.view == a[b].counts && a[b].reached && (start || !a[b].told);
  assert(drained);
  /* All ends are one. */
  wipe(r);
  wipe(replica);
  k = 0;
  do
  :: k < WRITERS -> unadopt(k); k++
  :: else -> break
  od;
  k = 0;
  do
  :: k <= AGGREGATORS -> forget(k); k++
  :: else -> break
  od;
  behind = 0;
  failovers = 0;
  flushes = 0;
  retentions = 0;
  renewals = 0;
  start = 0;
  token = 0;
  request = 0;
#ifdef KAFKA
  best.there = 0;
  best.genesis = 0;
  best.next = 0;
  best.counts = 0;
  best.told = 0;
  sending.there = 0;
  sending.genesis = 0;
  sending.next = 0;
  sending.counts = 0;
  sending.told = 0;
#endif
  over = 1
}
#endif

/* ---- the world --------------------------------------------------------------------------------------------------------- */

/* Room in the log (FULL: the writer waits), and the end of what this model counts to. */
#define room (!r.present || (r.count < ENTRIES && r.first + r.count < IDS))
#define read_at_least(c, p) at(begun(c) | w[c].stored, p)

#if AGGREGATORS > 1
#define any_aggregator if :: b = 0 :: b = 1 fi
#else
#define any_aggregator b = 0
#endif
#if WRITERS > 2
#define any_writer if :: c = 0 :: c = 1 :: c = 2 fi
#elif WRITERS > 1
#define any_writer if :: c = 0 :: c = 1 fi
#else
#define any_writer c = 0
#endif

/* The sender gives up and does what its caller does; the request is still on its way. */
inline send_late(b, request_) {
  request = request_;
  token = b + 1;
  a[ON_ITS_WAY].phase = a[b].phase;
  a[ON_ITS_WAY].reached = a[b].reached;
  a[ON_ITS_WAY].lineage = a[b].lineage;
  a[ON_ITS_WAY].id = a[b].id;
  a[ON_ITS_WAY].nonce = a[b].nonce;
  a[ON_ITS_WAY].next = a[b].next;
  a[ON_ITS_WAY].counts = a[b].counts;
  a[ON_ITS_WAY].told = a[b].told;
  a[ON_ITS_WAY].publish = a[b].publish;
  a[ON_ITS_WAY].everything = a[b].everything;
  a[ON_ITS_WAY].shown = a[b].shown;
  a[ON_ITS_WAY].genesis = a[b].genesis;
  if
  :: request_ == VIEWS_REQUEST || request_ == HEALTH_REQUEST ->
    a[b].phase = FOLLOWS;
    a[b].everything = 1
  :: else -> forget(b)
  fi
}

/* Somebody with a valid lease is between Kafka's answer and its genesis, or a genesis is on its way. Retention does not pass that quickly:
 * assumed. If it did, the writers would tell a gap. */
#define asking(b, token_) (a[b].phase == ASKED && fenced(token_))
#if AGGREGATORS > 1
#define nobody_asks (!asking(0, 1) && !asking(1, 2) && request != GENESIS_REQUEST)
#else
#define nobody_asks (!asking(0, 1) && request != GENESIS_REQUEST)
#endif

active proctype world() {
  byte b, c, mask, to, lost;
#ifdef GENERATION
  owner = 1;
  group = 1;
#endif
  /* Begins behind the first genesis, which writers and aggregators may not have noticed. */
  d_step {
    forget(0);
    a[0].phase = ASKED;
    r.lease = 1;
    r.last = 1;
    genesis_script(0, 1);
    tidy()
  }
end:
  do
#ifdef DRAIN
  :: over -> break
#define running !over &&
#else
#define running
#endif

    /* Writers. */
  :: atomic {
      running r.present ->
      any_writer;
#ifdef GENERATION
      mask = (c == 0 -> owner : 3 & ~owner);
      mask -> skip;
#else
      if
      :: mask = 1
      :: mask = 2
      :: mask = 3
      fi;
#endif
      d_step {
        printf("writer %d adopts partitions %d at %d %d\n", c, mask, at(r.positions, 0), at(r.positions, 1));
        adopt_script(c, mask);
#ifdef GENERATION
        if
        :: !fine -> unadopt(c)
        :: else
        fi;
#endif
        tidy();
        c = 0;
        mask = 0
      }
    }
  :: atomic {
      running room ->
      any_writer;
      w[c].mask && !half_done(c) ->
      to = (at(w[c].stored, 0) > at(begun(c), 0) -> at(w[c].stored, 0) : at(begun(c), 0)) |
           ((at(w[c].stored, 1) > at(begun(c), 1) -> at(w[c].stored, 1) : at(begun(c), 1)) << 2);
      if
      :: (w[c].mask & 1) && at(to, 0) < END0 ->
        to = to + 1;
        if
        :: at(to, 0) < END0 -> to = to + 1
        :: true
        fi
      :: true
      fi;
      if
      :: (w[c].mask & 2) && at(to, 1) < END1 ->
        to = to + 4;
        if
        :: at(to, 1) < END1 -> to = to + 4
        :: true
        fi
      :: true
      fi;
#if RETENTIONS
      if
      :: start -> lost = 15
      :: true
      fi;
#endif
#ifdef NO_IDLE
      to != w[c].stored;
#endif
      d_step {
        printf("writer %d commits partitions %d from %d %d to %d %d\n", c, w[c].mask, at(begun(c), 0), at(begun(c), 1), at(to, 0), at(to, 1));
        commit_script(c, to, lost);
        tidy();
        c = 0;
        to = 0;
        lost = 0
      }
    }
#ifdef TWO_COMMANDS
  :: atomic {
      any_writer;
      w[c].half ->
      d_step {
        commit_second(c);
        tidy();
        c = 0
      }
    }
  :: atomic { /* between the two the writer dies */
      any_writer;
      w[c].half ->
      d_step {
        unadopt(c);
        check_truth();
        tidy();
        c = 0
      }
    }
#endif
#ifdef GENERATION
  :: atomic {
      group < 3 ->
      group++;
      if
      :: owner = 0
      :: owner = 1
      :: owner = 2
      :: owner = 3
      fi
    }
#endif
#ifdef KAFKA_OFFSETS
  :: atomic {
      any_writer;
      w[c].mask ->
      d_step {
        committed = (committed & ~lanes(w[c].mask)) | w[c].stored;
        c = 0
      }
    }
#endif

#ifdef SNAPSHOTS
    /* Aggregators. */
  :: atomic {
      running true -> any_aggregator;
      d_step { printf("aggregator %d asks for the lease\n", b); lease_script(b, b + 1); tidy(); b = 0 }
    }
  :: atomic {
      running true -> any_aggregator;
      d_step { printf("aggregator %d loads what is stored\n", b); look_script(b); tidy(); b = 0 }
    }
#if FLUSHES || RENEWALS
  :: atomic {
      running true -> any_aggregator; a[b].phase == ABSENT ->
      d_step { printf("aggregator %d asks Kafka where to begin\n", b); ask(b, b + 1); tidy(); b = 0 }
    }
  :: atomic {
      running true -> any_aggregator; a[b].phase == ASKED ->
      d_step { printf("aggregator %d begins the namespace\n", b); begin(b, b + 1); tidy(); b = 0 }
    }
#endif
  :: atomic {
      running true -> any_aggregator; a[b].phase == FOLLOWS ->
      if
      :: c = 0
      :: c = 1
      fi;
      d_step { printf("aggregator %d folds on from entry %d\n", b, a[b].id); read_script(b, b + 1, c); tidy(); b = 0; c = 0 }
    }
#ifndef NO_VIEWS
#ifdef VIEWS
  :: atomic {
      running true -> any_aggregator; a[b].phase == FOLLOWS && a[b].reached && (a[b].everything || a[b].shown != a[b].counts) ->
      d_step { printf("aggregator %d publishes views\n", b); publish_script(b, b + 1, VIEWS_REQUEST); tidy(); b = 0 }
    }
  :: atomic {
      running true -> any_aggregator; a[b].reached && (a[b].phase == HALFWAY || a[b].phase == FOLLOWS && !a[b].everything && a[b].shown == a[b].counts) ->
      d_step { printf("aggregator %d publishes health\n", b); publish_script(b, b + 1, HEALTH_REQUEST); tidy(); b = 0 }
    }
#else
  :: atomic {
      running true -> any_aggregator; a[b].phase == FOLLOWS && a[b].reached ->
      d_step { printf("aggregator %d publishes\n", b); publish_script(b, b + 1, 0); tidy(); b = 0 }
    }
#endif
#endif
  :: atomic {
      running true -> any_aggregator; a[b].phase == FOLLOWS && a[b].reached ->
      d_step { printf("aggregator %d flips a snapshot up to entry %d\n", b, a[b].id); flip_script(b, b + 1); tidy(); b = 0 }
    }
  :: d_step { running r.lease -> r.lease = 0; printf("the lease expires\n") }
#endif

#ifdef LATE
    /* A script that its sender has given up. It lands when it likes, or never. */
  :: atomic {
      running !request -> any_aggregator;
      if
      :: a[b].phase == FOLLOWS && a[b].reached -> c = FLIP_REQUEST
#ifndef NO_VIEWS
      :: a[b].phase == FOLLOWS && a[b].reached && (a[b].everything || a[b].shown != a[b].counts) -> c = VIEWS_REQUEST
      :: a[b].reached && (a[b].phase == HALFWAY || a[b].phase == FOLLOWS && !a[b].everything && a[b].shown == a[b].counts) -> c = HEALTH_REQUEST
#endif
      :: a[b].phase == ASKED -> c = GENESIS_REQUEST
      fi;
      d_step { printf("aggregator %d gives up request %d\n", b, c); send_late(b, c); tidy(); b = 0; c = 0 }
    }
  :: d_step {
      running request ->
      printf("request %d arrives late\n", request);
      if
      :: request == FLIP_REQUEST -> flip_script(ON_ITS_WAY, token)
      :: request == GENESIS_REQUEST -> genesis_script(ON_ITS_WAY, token)
      :: else -> publish_script(ON_ITS_WAY, token, request)
      fi;
      forget(ON_ITS_WAY);
      token = 0;
      request = 0;
      tidy()
    }
#endif

    /* Faults. */
#if FAILOVERS
  :: d_step { running !behind && failovers -> printf("the replica is cut off here\n"); copy(replica, r); behind = 1 }
  :: d_step { running behind -> printf("the replica is promoted\n"); copy(r, replica); wipe(replica); behind = 0; failovers--; tidy() }
#endif
#if FLUSHES
  :: d_step { running flushes && r.present -> printf("Redis is flushed\n"); wipe(r); flushes--; tidy() }
#endif
#if RENEWALS
  :: atomic {
      running renewals && r.present -> any_aggregator;
      d_step {
        printf("aggregator %d decides to begin anew\n", b);
        forget(b);
        a[b].phase = ABSENT;
        a[b].lineage = r.lineage;
        renewals--;
        tidy();
        b = 0
      }
    }
#endif
#if RETENTIONS
  :: d_step { running retentions && at(start, 0) < END0 && nobody_asks -> start = start + 1; retentions--; printf("retention removes a record\n") }
#endif
#ifdef KAFKA
  :: d_step {
      running sending.there ->
      printf("a snapshot of genesis %d arrives in Kafka\n", sending.genesis);
      if
      :: !best.there || sending.genesis > best.genesis ||
        (sending.genesis == best.genesis && at(sending.next, 0) + at(sending.next, 1) > at(best.next, 0) + at(best.next, 1)) ->
        best.there = 1; best.genesis = sending.genesis; best.next = sending.next; best.counts = sending.counts; best.told = sending.told
      :: else
      fi;
      sending.there = 0; sending.genesis = 0; sending.next = 0; sending.counts = 0; sending.told = 0
    }
#endif
#ifdef DRAIN
  :: atomic {
      running true -> any_aggregator;
      d_step { printf("faults stop, aggregator %d goes on\n", b); drain(b); b = 0 }
    }
#endif
  od
}
