/**
 * What the worker of a keeper uses of the runtime, besides the other two doors. A file of its own, so that a program
 * without a keeper loads none of it.
 */

export { type Delivery, KeeperLink } from './keeper/link.ts'
export { KeeperProcesses } from './keeper/processes.ts'
export { shareProcessMaker } from './sys/reaper.ts'
