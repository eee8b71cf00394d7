// People paste messages. Material's search reads quotes, colons and leading dashes as operators, so "..." and --failed
// find nothing: its worker gets the words alone.
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  const QUERY = 2;
  if (message?.type === QUERY) {
    const words = message.data.replace(/["'`“”()[\]{}<>*+:;,^~=|]+/g, " ").replace(/(^|\s)-+/g, "$1");
    message = { ...message, data: words };
  }
  return post.call(this, message, ...rest);
};
