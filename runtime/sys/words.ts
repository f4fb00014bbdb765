/**
 * libc's words for an errno or a signal, in lower case, because tools match on them: "no such file or directory", "bad
 * system call". libuv has other words ("resource busy or locked"), and none for some numbers.
 */
import koffi from 'koffi'

function describer(name: 'strerror' | 'strsignal'): (number: number) => string {
  const known = new Map<number, string>()
  let native: ((number: number) => unknown) | undefined
  return (number) => {
    native ??= koffi.load(null).func(`const char *${name}(int number)`)
    const text =
      known.get(number) ?? String(native(number)).replace(/^[A-Z](?=[^A-Z])/, (letter) => letter.toLowerCase())
    known.set(number, text)
    return text
  }
}

/** The words for an errno. */
export const errnoText = describer('strerror')

/** The words for a signal. */
const signalText = describer('strsignal')

/** How a program ended: "exit status 1", "signal: bad system call". */
export function exitText({ status, signal }: { readonly status: number; readonly signal?: number }): string {
  return signal === undefined ? `exit status ${status}` : `signal: ${signalText(signal)}`
}
