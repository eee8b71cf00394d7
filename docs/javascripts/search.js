// People paste messages. To Material's search quotes, colons and leading dashes are operators, so "..." and --failed find
// nothing, and each word is also the beginning of others. Its worker gets the words alone, and whole words weigh more.
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (message, ...rest) {
  const QUERY = 2;
  if (message?.type === QUERY) {
    const words = message.data.split(/[\s"'`“”()[\]{}<>*+:;,^~=|]+/).map((word) => word.replace(/^-+/, ""));
    message = { ...message, data: words.filter(Boolean).flatMap((word) => [`${word}^9`, word]).join(" ") };
  }
  return post.call(this, message, ...rest);
};
