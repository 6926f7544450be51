-- Returns 1 if the table did not exist.
if call('HEXISTS', about, 'exists') == 1 then
    return 0
end
if count_of(rows, deletes, keys, topics, order) > 0 then
    return {within and 6 or 7}
end
begin()
note(last or 0, pack('>I8I8I8', number, 0, 0))
return outcome(1)
