// Package web has the pages that people open in a browser: the one on which a request is decided.
//
// What may be relied on:
//
//   - A link from a notification lets nobody in. It leads to a login at the identity provider; who that login
//     is, and whether it is strong and new enough for the request's rule, is the desk's to say. A link is spent
//     by the first person who logs in by it and may decide; opening it spends nothing. One that is spent, over,
//     made up or followed by somebody who may not decide is refused in the same words, and counted as strangers
//     are.
//   - Nothing of a request is shown before the login.
//   - Only a form that this server made for this browser's session decides anything: it carries a token that is
//     bound to the session, and a request that another site has sent is refused by where it comes from as well.
//   - A login can only be ended by the browser that began it, and comes back to a page of this server: no
//     address that somebody sends along is ever redirected to.
//   - Pages work without JavaScript, which the Content-Security-Policy forbids altogether, with the keyboard,
//     and with a screen reader. What people have written is text, wherever it stands.
package web
