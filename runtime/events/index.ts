/** What a program needs to follow the events of a container. The one command that needs it loads it as a whole. */
export { PRESSURE_LEVELS } from '../cgroup/pressure.ts'
export { followEvents, statsLine } from './follow.ts'
