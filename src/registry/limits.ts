/** What a registry may cost us. */

/** Largest manifest that is resolved to (containerd `core/remotes/docker`, MaxManifestSize). */
export const MAX_MANIFEST_BYTES = 4 * 1048 * 1048;

/** Of an error's body, what is read for its reason. */
export const MAX_ERROR_BODY_BYTES = 64_000;

/** For that. */
export const ERROR_BODY_TIMEOUT_MS = 2000;

/** Of a registry's own words, what an error repeats. */
export const MAX_REASON_CHARACTERS = 512;

/** Of `WWW-Authenticate`. */
export const MAX_CHALLENGE_CHARACTERS = 16_384;

/** Answer of a token server. */
export const MAX_TOKEN_BODY_BYTES = 1 << 20;

export const MAX_REDIRECTS = 10;

/** Requests for one answer: refusals that a token cures, retries and all. */
export const MAX_ATTEMPTS = 5;

/** Of them, those after an answer that says that the server is at fault. */
export const MAX_SERVER_ERRORS = 3;

/** Of them, those that were not answered in time. */
export const MAX_SILENCES = 2;

/** A cut connection is taken up again so often without a byte between (containerd `httpreadseeker.go`). */
export const MAX_CUTS_WITHOUT_PROGRESS = 3;

/** Uploads begun for one blob. */
export const MAX_UPLOADS = 3;

/** Until the head of an answer. */
export const HEADER_TIMEOUT_MS = 30_000;

/** The same once an upload is sent: the registry moves and checks it before it answers. */
export const UPLOAD_ANSWER_TIMEOUT_MS = 300_000;

/** Without a byte of a body that somebody waits for, or that is sent. */
export const STALL_TIMEOUT_MS = 60_000;

export const FIRST_DELAY_MS = 50;
/** Longest wait before a retry, whatever `Retry-After` says. */
export const MAX_DELAY_MS = 10_000;

/** A `hosts.toml` beyond its hosts is a mistake. */
export const MAX_HOSTS = 64;

/** Certificates and keys. */
export const MAX_PEM_BYTES = 4 << 20;

/** Pieces of an upload for registries (or what stands before them) that refuse a whole one. */
export const UPLOAD_CHUNK_BYTES = 32 << 20;
