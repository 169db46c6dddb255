-- An entry that cannot be routed leaves the stream for the refused ones, with the reason.
-- KEYS  stream, books, refused stream
-- ARGV  group, stream id, version, name of the field that holds the payload or '', payload, reason, problem
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'entry', ARGV[2], 'v', ARGV[3], 'field', ARGV[4],
  'm', ARGV[5], 'reason', ARGV[6], 'problem', ARGV[7])
redis.call('HINCRBY', KEYS[2], 'malformed', 1)
redis.call('HINCRBY', KEYS[2], 'refused:' .. ARGV[6], 1)
return 1
