-- Nothing is left of erased users.
-- KEYS  erasures   ARGV  for each: owner, the owner's other name, until when their messages were to go
-- Who was erased once more meanwhile stays.
for at = 1, #ARGV, 3 do
  local until_ms, again = unpack(redis.call('ZMSCORE', KEYS[1], ARGV[at], ARGV[at + 1]))
  if until_ms and not again and tonumber(until_ms) == tonumber(ARGV[at + 2]) then
    redis.call('ZREM', KEYS[1], ARGV[at])
  end
end
return 0
