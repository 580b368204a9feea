# Nothing to do: the guest came up, which is the news.
true
