// The settings that reach the server: what was set, and nothing that was not, since the user's own
// configuration file holds where the editor says nothing.

/** A setting as package.json declares it. */
export interface Declared {
  readonly type: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly scope: string;
}

/** What the levels of the editor's configuration say; absent where they say nothing. */
export interface Levels {
  readonly globalValue?: unknown;
  readonly workspaceValue?: unknown;
}

/** What belongs to the extension alone. */
const NOT_THE_SERVERS = new Set(['tandem.path']);

/** The section `tandem` for the server, as a tree. */
export function forServer(
  declared: Readonly<Record<string, Declared>>,
  inspect: (name: string) => Levels | undefined,
): Record<string, unknown> {
  const section: Record<string, unknown> = {};
  for (const [name, setting] of Object.entries(declared)) {
    const value = NOT_THE_SERVERS.has(name) ? undefined : inForce(setting, inspect(name) ?? {});
    if (value !== undefined) {
      put(section, name.split('.').slice(1), value);
    }
  }
  return section;
}

function inForce(setting: Declared, { globalValue, workspaceValue }: Levels): unknown {
  const levels = [globalValue, workspaceValue];
  if (setting.type === 'array') {
    const lists = levels.filter((level) => Array.isArray(level));
    return lists.length === 0 ? undefined : [...new Set<unknown>(lists.flat())];
  }
  if (setting.enum?.includes(false) === true) {
    return levels.includes(false) ? false : undefined;
  }
  return setting.scope === 'window' ? (workspaceValue ?? globalValue) : globalValue;
}

function put(section: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [name, ...rest] = path;
  if (name === undefined) {
    return;
  }
  if (rest.length === 0) {
    section[name] = value;
    return;
  }
  const group = (section[name] ?? {}) as Record<string, unknown>;
  section[name] = group;
  put(group, rest, value);
}

/** All settings that package.json declares, its groups put together. */
export function declaredSettings(manifest: {
  contributes: { configuration: readonly { properties: Readonly<Record<string, Declared>> }[] };
}): Record<string, Declared> {
  return Object.assign(
    {},
    ...manifest.contributes.configuration.map(({ properties }) => properties),
  ) as Record<string, Declared>;
}
