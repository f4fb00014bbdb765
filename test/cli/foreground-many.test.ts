/** Thousands of commands in the foreground, in every way to give them their streams. FULL=1 runs 6,000, else 160. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect } from 'vitest'
import { allPids } from '../support/census.ts'
import { needs } from '../support/needs.ts'
import { BIN, PAYLOAD } from '../support/places.ts'
import { test } from '../support/runts.ts'
import { openFiles, pidOf, pidsOf, shell } from './foreground-host.ts'

describe('many commands in the foreground', needs('root', 'busybox'), () => {
  const full = process.env['FULL'] === '1'
  // around what pipes, pages and one write hold; each with the status that its commands end with
  const sizes = [0, 1, 4095, 4097, 65_535, 65_536, 65_537, 200_003]
  const statuses = [0, 1, 3, 6, 125, 127, 137, 255]

  test('lose no byte and no status, and leave nothing behind', { timeout: 1_800_000 }, async ({ runts }) => {
    // it outlives them all
    runts.leave('run', '-d', '-b', runts.bundle(['sleep', '100000']), 'c')
    const init = await pidOf(runts, 'c')
    const files = openFiles(init)
    const [execs, runs] = full ? [5000, 1000] : [112, 48]
    // without an input it takes the last of each
    const program = `read size status; payload bytes \${size:-200003} text; echo "$size $status"; echo err >&2; exit \${status:-255}`
    const bundles = [0, 1].map(() => runts.bundle(['sh', '-c', program]))
    const script = `
      sizes=(${sizes.join(' ')}); statuses=(${statuses.join(' ')})
      said() { ${PAYLOAD} bytes $1 text; echo "$2"; }
      sum() { tr -d '\r' | sha256sum | cut -c-64; }
      for k in \${!sizes[@]}; do
        size=\${sizes[k]}; words="$size \${statuses[k]}"
        echo "$words" >in.$k
        out[k]=$(said $size "$words" | sum); both[k]=$(said $size "$words"$'\nerr' | sum)
        length[k]=$(said $size "$words"$'\nerr' | wc -c)
      done
      last=$((\${#sizes[@]} - 1)); noInput=$(said 200003 ' '$'\nerr' | sum); err=$(echo err | sum)
      one() { # NUMBER WAYS WORDS...: each way in turn, with each size
        n=$1; ways=$2; shift 2; k=$((n / ways % \${#sizes[@]})); status=\${statuses[k]}
        case $((n % ways)) in
        0) got="$(cat in.$k | runts "$@" 2>err.$n | sum; echo \${PIPESTATUS[1]}) $(sum <err.$n)"; want="\${out[k]} $status $err" ;;
        1) runts "$@" <in.$k >out.$n 2>&1; got="$? $(sum <out.$n)"; want="$status \${both[k]}" ;;
        2) runts "$@" <&- >out.$n 2>>out.$n; got="$? $(sum <out.$n)"; want="255 $noInput" ;;
        3) got=$(runts "$@" <in.$k 2>&1 | sum; echo \${PIPESTATUS[0]}); want="\${both[k]} $status" ;;
        4) runts "$@" <in.$k >&- 2>&-; got=$?; want=$status ;;
        # the terminal shows what is typed before what is said
        5) ${PAYLOAD} terminal 24 80 -- ${join(BIN, 'runts')} --root ${runts.root} "$@" <in.$k >out.$n
          got="$? $(tr -d '\r' <out.$n | tail -c \${length[k]} | sum)"; want="$status \${both[k]}" ;;
        6) got="$(cat in.$k | runts exec -t "\${@:2}" | tr -d '\r' | tail -c \${length[k]} | sum; echo \${PIPESTATUS[1]})"; want="\${both[k]} $status" ;;
        esac
        rm -f err.$n out.$n
        [ "$(echo $got)" = "$want" ] || echo "$n ($((n % ways)), $k): $got instead of $want" >&2
      }
      work() { # FIRST COUNT WHAT BUNDLE: every second one
        i=$1; while [ $i -lt $2 ]; do
          if [ $3 = exec ]; then one $i 7 exec c sh -c '${program}'; else one $i 6 run -b $4 r$i; fi
          i=$((i + 2))
        done
      }
      work 0 ${execs} exec & work 1 ${execs} exec & wait
      work 0 ${runs} run ${bundles[0]} & work 1 ${runs} run ${bundles[1]} & wait`
    const { stderr } = await shell(runts, script, { timeoutMs: 1_700_000 })
    expect(stderr).toBe('')
    expect(await pidsOf(runts, 'c')).toEqual([init])
    expect(openFiles(init)).toEqual(files)
    expect((await runts.ok('list', '-q')).stdout).toBe('c\n')
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(runts.folder)
    // neither a helper nor a relay
    expect(allPids().filter((pid) => commandLine(pid).includes(runts.root))).toEqual([])
  })
})

function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    // it has ended
    return ''
  }
}
