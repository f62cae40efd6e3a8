// Writes the server's tools and version into manifest.json: `npm run manifest`. A test in tests/it holds
// the one to the other.
//
// TANDEM_BIN  the program (target/release/tandem)

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const here = import.meta.dirname;
const command = process.env.TANDEM_BIN ?? join(here, '../../../target/release/tandem');
const file = join(here, '../manifest.json');

const client = new Client({ name: 'tandem-manifest', version: '1.0.0' });
await client.connect(new StdioClientTransport({ command, args: ['mcp', '--no-daemon'] }));
const { tools } = await client.listTools();
const { version } = client.getServerVersion();
await client.close();

const manifest = JSON.parse(readFileSync(file, 'utf8'));
manifest.version = version;
manifest.tools = tools.map(({ name, description }) => ({ name, description }));
writeFileSync(file, `${JSON.stringify(manifest, null, 2)}\n`);
