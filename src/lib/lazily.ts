export interface Lazy<T> {
  /** Undefined until somebody asked for it. */
  readonly opened: Promise<T | undefined> | undefined;
  readonly get: () => Promise<T>;
}

/** Made once, when it is first asked for; again if that failed. */
export function lazily<T>(make: () => Promise<T>): Lazy<T> {
  let made: Promise<T> | undefined;
  return {
    get opened() {
      return made?.catch(() => undefined);
    },
    get() {
      if (made === undefined) {
        const making = make();
        made = making;
        making.catch(() => {
          if (made === making) made = undefined;
        });
      }
      return made;
    },
  };
}
