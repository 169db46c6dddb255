-- An entry that cannot be routed leaves the stream for the refused ones, with the reason.
-- KEYS  stream, books, refused stream
-- ARGV  group, stream id, the id with which it was written first, version, name of the field that holds the payload or
--       '', payload, reason, problem
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if redis.call('XDEL', KEYS[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100000, '*', 'entry', ARGV[3], 'v', ARGV[4], 'field', ARGV[5],
  'm', ARGV[6], 'reason', ARGV[7], 'problem', ARGV[8])
redis.call('HINCRBY', KEYS[2], 'malformed', 1)
redis.call('HINCRBY', KEYS[2], 'refused:' .. ARGV[7], 1)
return 1
