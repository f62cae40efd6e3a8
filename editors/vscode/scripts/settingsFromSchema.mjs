// From the schema of what an editor may say to the settings of the extension. Pure.

/**
 * What JSON Schema has and is used here.
 *
 * @typedef {{
 *   type?: string | string[],
 *   description?: string,
 *   default?: unknown,
 *   properties?: Record<string, Schema>,
 *   anyOf?: Schema[],
 *   oneOf?: Schema[],
 *   const?: unknown,
 *   enum?: unknown[],
 *   items?: Schema,
 *   minimum?: number,
 *   maximum?: number,
 *   pattern?: string,
 * }} Schema
 */

/**
 * A setting of package.json.
 *
 * @typedef {Record<string, unknown> & { scope: 'application' | 'window' }} Setting
 */

/** The titles of the groups, in the order in which they are shown. */
const GROUPS = /** @type {const} */ ({
  '': 'Tandem',
  completion: 'Completions',
  server: 'Inference Server',
  claude: 'Claude',
  privacy: 'Privacy',
  log: 'Log',
});

/** Means nothing to the server. */
const NOT_OURS = ['trace'];

/** How the description of a setting ends which the user's own file may hold, too. */
const OWN_FILE = 'Until it is set here, your own configuration file holds.';

/**
 * The settings, in groups.
 *
 * @param {Schema} schema
 * @returns {{ title: string, properties: Record<string, Setting> }[]}
 */
function settingsFromSchema(schema) {
  const groups = new Map(
    Object.entries(GROUPS).map(([group, title]) => [
      group,
      { title, properties: /** @type {Record<string, Setting>} */ ({}) },
    ]),
  );
  for (const [key, leaf] of leaves(schema)) {
    const group = groups.get(key.includes('.') ? (key.split('.', 1)[0] ?? '') : '');
    if (group === undefined) {
      throw new Error(
        `${key} belongs to no group. Name its group in scripts/settingsFromSchema.mjs.`,
      );
    }
    group.properties[`tandem.${key}`] = setting(key, leaf);
  }
  return [...groups.values()];
}

/** The settings that are the extension's own. */
const OWN = {
  'tandem.path': {
    type: 'string',
    default: '',
    scope: 'machine',
    markdownDescription:
      'The full path of the program `tandem`. If this is empty, the one shipped with the extension runs, or the first on `PATH`.',
  },
};

/**
 * package.json with the settings that belong there.
 *
 * @template {{ contributes: object, capabilities: { untrustedWorkspaces: object } }} Manifest
 * @param {Manifest} manifest
 * @param {Schema} schema
 */
export function manifestWithSettings(manifest, schema) {
  const groups = settingsFromSchema(schema);
  const all = Object.assign({}, ...groups.map(({ properties }) => properties));
  const [first, ...others] = groups;
  return {
    ...manifest,
    capabilities: {
      ...manifest.capabilities,
      untrustedWorkspaces: {
        ...manifest.capabilities.untrustedWorkspaces,
        restrictedConfigurations: restricted(all),
      },
    },
    contributes: {
      ...manifest.contributes,
      configuration: [{ ...first, properties: { ...OWN, ...first?.properties } }, ...others],
    },
  };
}

/**
 * Settings that an untrusted workspace may not say: those which a workspace may say at all, less
 * those that can only take something away.
 *
 * @param {Record<string, Setting>} settings
 */
function restricted(settings) {
  return Object.entries(settings)
    .filter(([, setting]) => setting.scope === 'window' && !takesAway(setting))
    .map(([name]) => name);
}

/**
 * @param {Schema} schema
 * @returns {[string, Schema][]}
 */
function leaves(schema, prefix = '') {
  return Object.entries(schema.properties ?? {}).flatMap(([name, member]) => {
    const key = prefix + name;
    if (NOT_OURS.includes(key)) {
      return [];
    }
    return member.properties === undefined
      ? [/** @type {[string, Schema]} */ ([key, member])]
      : leaves(member, `${key}.`);
  });
}

/**
 * @param {string} key
 * @param {Schema} schema
 * @returns {Setting}
 */
function setting(key, schema) {
  const shape = shapeOf(key, schema);
  const lists = shape['type'] === 'array';
  const tightens = lists || isFalseOrNothing(shape);
  return {
    ...shape,
    // What could loosen what the user said is the user's alone. The rest a workspace may say, and
    // the extension sees to it that lists add up and that what one level forbids is forbidden.
    scope: tightens || key.startsWith('completion.') ? 'window' : 'application',
    markdownDescription: lists
      ? (schema.description ?? '')
      : `${schema.description ?? ''} ${OWN_FILE}`,
  };
}

/**
 * @param {string} key
 * @param {Schema} schema
 * @returns {Record<string, unknown>}
 */
function shapeOf(key, schema) {
  const plain = withoutNull(schema);
  if (plain.enum?.includes(false)) {
    return { type: ['boolean', 'null'], enum: [false, null], default: null };
  }
  if (plain.oneOf !== undefined) {
    return {
      type: 'string',
      enum: plain.oneOf.map((choice) => choice.const),
      markdownEnumDescriptions: plain.oneOf.map((choice) => choice.description),
      default: schema.default,
    };
  }
  const { type, minimum, maximum, pattern, items } = plain;
  if (typeof type !== 'string') {
    throw new Error(`${key} is of a kind that scripts/settingsFromSchema.mjs does not know yet.`);
  }
  return {
    type,
    ...(minimum === undefined ? {} : { minimum }),
    ...(maximum === undefined ? {} : { maximum }),
    ...(pattern === undefined ? {} : { pattern }),
    ...(items === undefined ? {} : { items: { type: items.type } }),
    default: schema.default,
  };
}

/**
 * A setting that is not there says nothing, so none needs to be null. Of several spellings the one
 * in words is offered.
 *
 * @param {Schema} schema
 * @returns {Schema}
 */
function withoutNull(schema) {
  if (schema.anyOf !== undefined) {
    const others = schema.anyOf.filter(({ type }) => type !== 'null').map(withoutNull);
    return others.find(({ type }) => type === 'string') ?? others[0] ?? schema;
  }
  if (Array.isArray(schema.type)) {
    const [type, ...more] = schema.type.filter((type) => type !== 'null');
    return type === undefined || more.length > 0 ? schema : { ...schema, type };
  }
  return schema;
}

/** @param {Record<string, unknown>} shape */
function isFalseOrNothing(shape) {
  return Array.isArray(shape['enum']) && shape['enum'].includes(false);
}

/** @param {Setting} setting */
function takesAway(setting) {
  return setting['type'] === 'array' || isFalseOrNothing(setting);
}
