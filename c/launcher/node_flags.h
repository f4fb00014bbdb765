/*
 * The V8 and Node options of every shim process. scripts/code-cache.ts reads them from here,
 * because a code cache is valid only for the options it was made with. A small young generation
 * keeps an idle shim small: the next calls collect the garbage of the last ones. One helper thread
 * instead of four is enough for so small a heap (0 would mean one for every processor). Warnings of
 * Node are for its programmers; a log has no reader for them.
 */
#ifndef NODE_FLAGS_H
#define NODE_FLAGS_H

#define NODE_FLAGS_LIST "--no-warnings", "--max-semi-space-size=1", "--v8-pool-size=1"

#endif
