-- Pushes were sent: where a retry waits, it is to know how new they are.
-- KEYS  the place of each
-- ARGV  when each was written (Unix ms)
for i, key in ipairs(KEYS) do
  local newest = redis.call('GET', key)
  if newest and tonumber(newest) < tonumber(ARGV[i]) then redis.call('SET', key, ARGV[i], 'KEEPTTL') end
end
