/**
 * What libc calls the number of an error or of a signal, in the lower case of the messages that tools of the field look for: "no such file
 * or directory", "bad system call". (Node's own words are libuv's: "resource busy or locked", and for some numbers there are none.)
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
