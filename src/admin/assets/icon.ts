/** The icon of the page. */
export const ICON = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><title>Session admin</title><rect width="32" height="32" rx="8" fill="#0b5f5a"/><path d="M7 20.5 10.5 9m4 11.5L18 9m4 11.5L25.5 9M6.5 24.5h19" fill="none" stroke="#fff" stroke-width="2.5" stroke-linecap="round"/></svg>`;
