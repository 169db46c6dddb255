-- Adds entries to one ingress stream: all of them or none.
--
-- KEYS[1]  the stream
-- ARGV[1]  most entries the stream may hold
-- ARGV[2]  entries there must be room for: these, and what is still to come of a message of many parts
-- ARGV[3]  field v
-- ARGV[4…] field m, one for each entry
--
-- Returns the stream's new length; when there is no room, its length negated, and nothing was written.
local length = redis.call('XLEN', KEYS[1])
if length + tonumber(ARGV[2]) > tonumber(ARGV[1]) then
  return -length
end
for i = 4, #ARGV do
  redis.call('XADD', KEYS[1], '*', 'v', ARGV[3], 'm', ARGV[i])
end
return length + #ARGV - 3
