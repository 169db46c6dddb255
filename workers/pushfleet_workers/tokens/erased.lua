-- Nothing is left of erased users.   KEYS  erasures   ARGV  for each: owner, until when their messages were to go
-- Who was erased once more meanwhile stays.
for at = 1, #ARGV, 2 do
  local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if until_ms and tonumber(until_ms) == tonumber(ARGV[at + 1]) then redis.call('ZREM', KEYS[1], ARGV[at]) end
end
return 0
