#!/usr/bin/env node
/** The operator's process: reads the configuration, runs until SIGTERM or SIGINT. */
import { ConfigError, helpText, parseConfig, type Command } from './config.ts';
import { readCatalogue } from './guardrails/kill-switch/catalogue.ts';
import { createLogger } from './observability/logger.ts';
import { createOperator } from './operator.ts';
import { version } from './version.ts';

function readCommand(): Command | undefined {
  try {
    return parseConfig(process.argv.slice(2), process.env);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 2;
    return undefined;
  }
}

const command = readCommand();
if (command?.kind === 'help') process.stdout.write(`${helpText()}\n`);
if (command?.kind === 'version') process.stdout.write(`${version}\n`);
if (command?.kind === 'run') {
  const { config } = command;
  const logger = createLogger({ level: config.logLevel });
  try {
    const catalogue = config.catalogue === undefined ? [] : await readCatalogue(config.catalogue);
    const host = createOperator({ config, logger, catalogue });
    const stop = (signal: string): void => {
      logger.info('Stopping', { signal });
      host.stop();
    };
    process.once('SIGTERM', () => stop('SIGTERM'));
    process.once('SIGINT', () => stop('SIGINT'));
    process.on('unhandledRejection', (error) => {
      logger.error('A promise was rejected and nobody looked', { error });
    });
    logger.info('Starting', { version, instance: config.instance });
    await host.start();
    await host.stopped();
    logger.info('Stopped');
  } catch (error) {
    logger.error('The operator could not start', { error });
    process.exitCode = 1;
  }
  await logger.close();
}
