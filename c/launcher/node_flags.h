/*
 * The options that every shim process is started with; scripts/code-cache.ts reads them from here, since a code cache holds only for
 * the options it was made with. A small young generation keeps an idle shim small: what a call leaves behind is collected at the next ones.
 * One helper thread instead of four does for so small a heap (0 would be one for every processor). Warnings of Node's own are for whoever
 * writes programs: nobody reads them in a log.
 */
#ifndef NODE_FLAGS_H
#define NODE_FLAGS_H

#define NODE_FLAGS_LIST "--no-warnings", "--max-semi-space-size=1", "--v8-pool-size=1"

#endif
