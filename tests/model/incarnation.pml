/* Positions of a topic that is deleted and made anew (common/position.h, consumer/scripts.c): next offset, incarnation and anchor are
 * stored together and compared together. One partition; a log is not needed here: counts stand where the positions stand, as commit.pml
 * shows that they may.
 *
 * A topic's number stands for its records: an anchor of another topic has another CRC. Finding that out and reading are one step, which the
 * program does after each adoption and every few seconds; what is read between two looks in the wrong topic is not in this model.
 *
 * What is checked: position_means_topic - counted, of the topic that the position speaks of, are the records below it, each once; and none
 * of any topic twice.
 *
 * Variants: NEXT_ALONE compares the next offset alone, NEXT_AND_INCARNATION leaves out the anchor. */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef REMADE
#define REMADE 2 /* how often the topic is made anew, at most 3 */
#endif
#ifndef FAILOVERS
#define FAILOVERS 1
#endif
#ifndef RECORDS
#define RECORDS 2 /* in each topic, at most 3 */
#endif
#define below(v) ((1 << (v)) - 1)

typedef REDIS {
  byte next, incarnation, topic; /* topic: that of the anchor, 0: there is no anchor */
  byte counts[REMADE + 2];
}
REDIS r, replica;
bit behind;
byte failovers = FAILOVERS;
byte topic = 1; /* the one that Kafka has now */

typedef WRITER {
  bit adopted;
  byte next, incarnation, topic; /* as stored */
  bit holds, restart;
  byte from, to, read; /* in hand: records from..to of topic `read` */
}
WRITER w[WRITERS];

hidden byte t, delta, position_means_topic;

#if defined(NEXT_ALONE)
#define cas(c) (r.next == w[c].next)
#elif defined(NEXT_AND_INCARNATION)
#define cas(c) (r.next == w[c].next && r.incarnation == w[c].incarnation)
#else
#define cas(c) (r.next == w[c].next && r.incarnation == w[c].incarnation && r.topic == w[c].topic)
#endif

inline drop(c) {
  w[c].adopted = 0;
  w[c].next = 0;
  w[c].incarnation = 0;
  w[c].topic = 0;
  w[c].holds = 0;
  w[c].restart = 0;
  w[c].from = 0;
  w[c].to = 0;
  w[c].read = 0
}

inline copy(to_, from_) {
  to_.next = from_.next;
  to_.incarnation = from_.incarnation;
  to_.topic = from_.topic;
  t = 0;
  do
  :: t < REMADE + 2 -> to_.counts[t] = from_.counts[t]; t++
  :: else -> break
  od
}

proctype writer(byte c) {
  byte to;
end:
  do
  :: d_step { /* whoever crashes, or loses a reply, adopts */
      printf("writer %d adopts offset %d, incarnation %d, anchor of topic %d\n", c, r.next, r.incarnation, r.topic);
      drop(c);
      w[c].adopted = 1;
      w[c].next = r.next;
      w[c].incarnation = r.incarnation;
      w[c].topic = r.topic
    }
  :: atomic { /* looks whether the anchor is there, and reads on, or from the start of a topic made anew */
      w[c].adopted && !w[c].holds ->
      w[c].restart = w[c].topic && w[c].topic != topic;
      w[c].from = (w[c].restart -> 0 : w[c].next);
      to = w[c].from;
      do
      :: to < RECORDS -> to++
      :: break
      od;
      d_step {
        w[c].to = to;
        w[c].read = topic;
        w[c].holds = 1;
        to = 0;
        printf("writer %d reads topic %d from %d to %d\n", c, topic, w[c].from, w[c].to)
      }
    }
  :: d_step {
      w[c].holds ->
      printf("writer %d commits\n", c);
      if
      :: !cas(c) -> drop(c)
      :: else ->
        delta = below(w[c].to) & ~below(w[c].from);
        position_means_topic = (r.counts[w[c].read] & delta) == 0;
        assert(position_means_topic);
        r.counts[w[c].read] = r.counts[w[c].read] | delta;
        r.next = w[c].to;
        r.incarnation = w[c].incarnation + w[c].restart;
        r.topic = (w[c].to -> w[c].read : 0);
        position_means_topic = !r.topic || r.counts[r.topic] == below(r.next);
        assert(position_means_topic);
        drop(c);
        w[c].adopted = 1;
        w[c].next = r.next;
        w[c].incarnation = r.incarnation;
        w[c].topic = r.topic
      fi
    }
  od
}

active proctype faults() {
end:
  do
  :: d_step { topic <= REMADE -> topic++; printf("topic %d is made\n", topic) }
#if FAILOVERS
  :: d_step { !behind && failovers -> copy(replica, r); behind = 1; printf("the replica is cut off here\n") }
  :: d_step { behind -> copy(r, replica); behind = 0; failovers--; printf("the replica is promoted\n") }
#endif
  od
}

init {
  atomic {
    run writer(0);
    run writer(1);
#if WRITERS > 2
    run writer(2)
#endif
  }
}
