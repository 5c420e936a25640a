/** Version of this program; the same as in package.json and the chart. */
export const version = '0.1.0';
