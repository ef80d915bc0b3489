// Prints what the two libraries for the embedded metric format print, as a function would, and writes what it gave them to
// record to the file named by the argument: emf_test.go compares that with what Weir makes of the lines.
import { writeFileSync } from 'node:fs';
import { MetricResolution, Metrics, MetricUnit } from '@aws-lambda-powertools/metrics';
import embedded from 'aws-embedded-metrics';

const { createMetricsLogger, StorageResolution, Unit } = embedded;
const series = new Map();

// record adds a value to what is expected of a series. The unit is CloudWatch's. Whole numbers are added up by themselves, as
// OpenTelemetry's SDK for Go does it: in another order the last digit of a sum of fractions is another one.
function record(namespace, name, unit, dimensions, value) {
  const key = JSON.stringify([namespace, name, unit, Object.entries(dimensions).sort()]);
  const s = series.get(key) ?? { namespace, name, unit, dimensions, count: 0, whole: 0, fractions: 0, min: value, max: value };
  s.count++;
  s[Number.isInteger(value) ? 'whole' : 'fractions'] += value;
  s.sum = s.fractions + s.whole;
  s.min = Math.min(s.min, value);
  s.max = Math.max(s.max, value);
  series.set(key, s);
}

const defaults = { LogGroup: 'orders-logs', ServiceName: 'orders', ServiceType: 'function' };

// aws-embedded-metrics: its own dimensions, two sets, a value in high resolution, properties.
for (let n = 0; n < 20; n++) {
  const logger = createMetricsLogger();
  logger.setNamespace('aws/default');
  logger.putDimensions({ Operation: 'write' });
  logger.putDimensions({ Operation: 'write', Region: 'eu "central" 1' });
  logger.putMetric('latency', n * 0.1, Unit.Milliseconds, StorageResolution.High);
  logger.putMetric('size', n * 1e6, Unit.Bytes);
  logger.setProperty('requestId', `r-\u00e9\u2028-${n}`);
  logger.setProperty('event', { nested: ['x', { latency: 7 }] });
  logger.setTimestamp(new Date());
  await logger.flush();
  for (const dimensions of [{ Operation: 'write' }, { Operation: 'write', Region: 'eu "central" 1' }]) {
    record('aws/default', 'latency', 'Milliseconds', { ...defaults, ...dimensions }, n * 0.1);
    record('aws/default', 'size', 'Bytes', { ...defaults, ...dimensions }, n * 1e6);
  }
}

// Values by the hundred: it writes several lines.
{
  const logger = createMetricsLogger();
  logger.setNamespace('aws/values');
  logger.setDimensions({ Queue: 'orders' });
  for (let n = 0; n < 250; n++) {
    logger.putMetric('wait', n / 3, Unit.Seconds);
    record('aws/values', 'wait', 'Seconds', { Queue: 'orders' }, n / 3);
  }
  for (let n = 0; n < 30; n++) {
    logger.putMetric('rows', n, Unit.Count);
    record('aws/values', 'rows', 'Count', { Queue: 'orders' }, n);
  }
  await logger.flush();
}

// More metrics than a directive may have.
{
  const logger = createMetricsLogger();
  logger.setNamespace('aws/many');
  logger.setDimensions({ Queue: 'orders' });
  for (let n = 0; n < 120; n++) {
    logger.putMetric(`m${n}`, n);
    record('aws/many', `m${n}`, 'None', { Queue: 'orders' }, n);
  }
  await logger.flush();
}

// All units.
{
  const logger = createMetricsLogger();
  logger.setNamespace('aws/units');
  logger.setDimensions({ Queue: 'orders' });
  for (const unit of Object.values(Unit)) {
    logger.putMetric(`in ${unit}`, -1.5, unit);
    record('aws/units', `in ${unit}`, unit, { Queue: 'orders' }, -1.5);
  }
  await logger.flush();
}

// A metric of the name of a dimension: its value is written over the dimension's.
{
  const logger = createMetricsLogger();
  logger.setNamespace('aws/clash');
  logger.setDimensions({ shard: 'seven' });
  logger.putMetric('shard', 7, Unit.Count);
  await logger.flush();
  record('aws/clash', 'shard', 'Count', { shard: '7' }, 7);
}

// No dimensions at all.
{
  const logger = createMetricsLogger();
  logger.setNamespace('aws/none');
  logger.resetDimensions(false);
  logger.putMetric('plain', 3, Unit.Count);
  await logger.flush();
  record('aws/none', 'plain', 'Count', {}, 3);
}

// Powertools: dimensions of all kinds, a value in high resolution, metadata.
const tools = new Metrics({ namespace: 'tools', serviceName: 'orders', defaultDimensions: { environment: 'test' } });
for (let n = 0; n < 20; n++) {
  tools.addDimension('Operation', 'write');
  tools.addDimensions({ Region: 'eu', Zone: 'a' });
  tools.addMetric('latency', MetricUnit.Milliseconds, n * 0.7, MetricResolution.High);
  tools.addMetric('errors', MetricUnit.Count, n % 3);
  tools.addMetadata('requestId', `r-${n}`);
  tools.publishStoredMetrics();
  for (const set of [{ Operation: 'write' }, { Region: 'eu', Zone: 'a' }]) {
    const dimensions = { service: 'orders', environment: 'test', ...set };
    record('tools', 'latency', 'Milliseconds', dimensions, n * 0.7);
    record('tools', 'errors', 'Count', dimensions, n % 3);
  }
}

// Values by the hundred, and metrics too.
for (let n = 0; n < 150; n++) {
  tools.addMetric('wait', MetricUnit.Seconds, n / 7);
  record('tools', 'wait', 'Seconds', { service: 'orders', environment: 'test' }, n / 7);
}
tools.publishStoredMetrics();
for (let n = 0; n < 120; n++) {
  tools.addMetric(`m${n}`, MetricUnit.BytesPerSecond, n);
  record('tools', `m${n}`, 'Bytes/Second', { service: 'orders', environment: 'test' }, n);
}
tools.publishStoredMetrics();

// A single metric is written at once, in a line of its own.
{
  const single = tools.singleMetric();
  single.addDimension('cold', 'true');
  single.addMetric('ColdStart', MetricUnit.Count, 1);
  record('tools', 'ColdStart', 'Count', { service: 'orders', environment: 'test', cold: 'true' }, 1);
}

writeFileSync(process.argv[2], JSON.stringify([...series.values()]));
