/** Compares models, on the series that all of them have a loss of. */

/**
 * Return a row a model, the best first, as `loss_scoring.core.table.leaderboard` does.
 *
 * A model without any loss is listed, and keeps no series from being compared.
 *
 * @param {{models: string[], losses: Object<string, (number | null)[]>}} answer of the long form: a
 *   row a series and model, the models of a series together.
 * @param {string} loss
 */
export function leaderboard({ models, losses }, loss) {
  const names = [...new Set(models)];
  const values = losses[loss];
  const series = [];
  for (let row = 0; row < values.length; row += names.length)
    series.push(values.slice(row, row + names.length));
  const failures = names.map((_, m) => series.filter((row) => row[m] === null).length);
  const compared = names.map((_, m) => m).filter((m) => failures[m] < series.length);
  const common = series.filter((row) => compared.every((m) => row[m] !== null));
  const rows = names.map((model, m) => {
    const isCompared = compared.includes(m) && common.length > 0;
    const mean = isCompared ? common.reduce((sum, row) => sum + row[m], 0) / common.length : null;
    return { model, mean, failures: failures[m], winRate: isCompared ? winRate(m) : null };
  });

  /** Return the share of series on which a model beats another, ties half, mean over the others. */
  function winRate(m) {
    const others = compared.filter((other) => other !== m);
    if (!others.length) return null;
    let beaten = 0;
    for (const row of common) {
      for (const other of others) {
        const [own, its] = [Math.abs(row[m]), Math.abs(row[other])]; // a bias has a sign
        beaten += own < its ? 1 : own === its ? 0.5 : 0;
      }
    }
    return beaten / others.length / common.length;
  }

  const size = ({ mean }) => (mean === null ? Infinity : Math.abs(mean));
  rows.sort((a, b) => size(a) - size(b) || (a.model < b.model ? -1 : 1));
  return { rows, compared: common.length, series: series.length };
}
