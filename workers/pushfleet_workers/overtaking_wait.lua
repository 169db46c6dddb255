-- Retries wait: whatever newer is sent to their places is to be noted there.
-- KEYS  that some wait, then the place of each
-- ARGV  for each place, for how long (ms)
local longest = 0
for i, life in ipairs(ARGV) do
  life = tonumber(life)
  longest = math.max(longest, life)
  if not redis.call('SET', KEYS[i + 1], 0, 'NX', 'PX', life) then redis.call('PEXPIRE', KEYS[i + 1], life, 'GT') end
end
if not redis.call('SET', KEYS[1], 1, 'NX', 'PX', longest) then redis.call('PEXPIRE', KEYS[1], longest, 'GT') end
