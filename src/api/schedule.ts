/** Cron expressions of five fields: their shape, shared by the CRD and its tests. */

/** A list of values, ranges and steps; a step must not exceed the field, as croner has it. */
function field(value: string, step: string): string {
  const item = `((${value})|([*]|(${value})-(${value}))(/(${step}))?)`;
  return `${item}(,${item})*`;
}

const minute = field('[0-5]?[0-9]', '[1-9]|[1-5][0-9]');
const hour = field('[01]?[0-9]|2[0-3]', '[1-9]|1[0-9]|2[0-3]');
const dayOfMonth = field('0?[1-9]|[12][0-9]|3[01]', '[1-9]|[12][0-9]|3[01]');
const month = field(
  '0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC',
  '[1-9]|1[0-2]',
);
const dayOfWeek = field('[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT', '[1-7]');

/**
 * RE2 and JavaScript alike. It doesn't see that a range runs backwards or that a date never comes
 * (30 February): whoever computes the next time must expect that there is none.
 */
export const schedulePattern = `^${[minute, hour, dayOfMonth, month, dayOfWeek].join(' +')}$`;

/** Characters. */
export const scheduleMaxLength = 128;
