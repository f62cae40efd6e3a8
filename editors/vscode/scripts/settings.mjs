// Writes the settings that come from the configuration's schema into package.json: `npm run settings`.

import { readFileSync, writeFileSync } from 'node:fs';

import { format } from 'prettier';

import { manifestWithSettings } from './settingsFromSchema.mjs';

const schema = JSON.parse(readFileSync('../../schemas/editor.schema.json', 'utf8'));
const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
const text = JSON.stringify(manifestWithSettings(manifest, schema));
writeFileSync('package.json', await format(text, { parser: 'json-stringify', printWidth: 100 }));
