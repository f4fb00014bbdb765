/** The door of this folder, which the rest of the runtime opens at its first checkpoint or restore. */
export { type DumpTarget, dump } from './dump.ts'
export { type RestoredParts, restore } from './restore.ts'
